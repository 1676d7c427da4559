"""What all tests share: one thread per process, own settings, GUI tests only where a window can open."""

import atexit
import os
import shutil
import sys
import tempfile

# Before numpy or torch is imported: tests run side by side; more threads than cores slow all of them down.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["MPLBACKEND"] = "Agg"

# Settings of napari and others: not the user's own, and not shared between workers.
_settings_folder = tempfile.mkdtemp(prefix="smlm-pb-settings-")
atexit.register(shutil.rmtree, _settings_folder, ignore_errors=True)
os.environ["XDG_CONFIG_HOME"] = _settings_folder
os.environ["NAPARI_CONFIG"] = os.path.join(_settings_folder, "napari.yaml")  # noqa: PTH118 - before pathlib

import importlib.util  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# A slow or busy machine must not fail a property; in CI the same examples are tried every time.
hypothesis.settings.register_profile("smlm-pb", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("smlm-pb")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of ``benchmarks/`` as if it were run from its folder, and forget it afterwards."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that open a window where none can be opened, and say why."""
    reason = _why_no_window()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_window() -> str | None:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "no display: run under xvfb-run, as 'make test' does"
    if importlib.util.find_spec("napari") is None:
        return "napari is not installed: pip install 'smlm-pb[napari]'"
    if importlib.util.find_spec("pytestqt") is None:
        return "pytest-qt is not installed: pip install 'smlm-pb[test]'"
    return None
