"""Remembered settings: declared in the manifest, kept by napari, shown in its Preferences."""

from __future__ import annotations

import json
import logging
from typing import Any

PLUGIN = "smlm-pb"

_log = logging.getLogger(__name__)


def remembered(section: str, key: str) -> Any:
    """Value of a setting.

    Parameters
    ----------
    section, key : str
        As declared under ``configurations`` in ``napari.yaml``.
    """
    return getattr(getattr(_settings(), section), key)


def remember(section: str, key: str, value: Any) -> None:
    """Keep a setting for the next time; napari writes it to its own file.

    A value that the manifest does not allow is not kept: settings never stop the work.
    """
    try:
        setattr(getattr(_settings(), section), key, value)
    except ValueError as error:
        _log.warning("The setting %s.%s = %r was not kept: %s", section, key, value, error)


def keep_number(field: Any, section: str, key: str) -> None:
    """Fill a spin box with the remembered value, and remember what it becomes.

    Parameters
    ----------
    field : QSpinBox or QDoubleSpinBox
        The field.
    section, key : str
        As declared under ``configurations`` in ``napari.yaml``.
    """
    field.setValue(type(field.value())(remembered(section, key)))
    field.valueChanged.connect(lambda value: remember(section, key, value))


def camera_presets() -> dict[str, dict[str, float]]:
    """Cameras that the user saved: name → values, those that were left to measure are absent."""
    try:
        stored = json.loads(remembered("cameras", "presets"))
        return {str(name): {str(key): float(value) for key, value in values.items()} for name, values in stored.items()}
    except (ValueError, TypeError, AttributeError):
        _log.warning("The saved cameras are damaged and were ignored; save them again in the panel.")
        return {}


def save_camera_preset(name: str, values: dict[str, float] | None) -> None:
    """Keep a camera under a name; None forgets it."""
    presets = camera_presets()
    presets.pop(name, None)
    if values is not None:
        presets[name] = values
    remember("cameras", "presets", json.dumps(presets, ensure_ascii=False))


def _settings() -> Any:
    from napari.settings import get_plugin_settings

    return get_plugin_settings(PLUGIN)
