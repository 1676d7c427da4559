"""Fewer digits where they cost nothing: 8-bit integers or bfloat16 on devices that have them, after a check.

What is fastest is measured. It is used if it changes nothing on simulated frames (see
:mod:`smlm_pb.localization.precision_check`); otherwise the next fastest is looked at. It is done once per model and
machine; the verdict is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb._version import __version__
from smlm_pb.errors import ConfigurationError
from smlm_pb.localization.precision_check import PrecisionCheck, check_precision

if TYPE_CHECKING:
    import torch

    from smlm_pb.localization.model import Model

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
#: What can be asked for.
PRECISIONS = ("auto", FLOAT32, BFLOAT16, INT8)
#: Narrower networks gain nothing: most of their time is not spent on convolutions.
_LEAST_CHANNELS = 32
#: Frames, their side and repeats by which it is measured what is fastest, and how much faster than float32 it must be.
_TIMED_FRAMES, _TIMED_PX, _REPEATS, _LEAST_SPEED_UP = 8, 64, 5, 1.1


def choose_precision(model: Model, asked: str = "auto") -> str:
    """Arithmetic in which a model is to be used.

    Parameters
    ----------
    model : Model
        The model on its device.
    asked : {"auto", "float32", "bfloat16", "int8"}
        ``auto``: the fastest that the device has and that passes :func:`check_precision`; float32 if none does.

    Returns
    -------
    str
        ``float32``, ``bfloat16`` or ``int8``.

    Raises
    ------
    ConfigurationError
        When the arithmetic is unknown, or cannot be had for this model on its device.
    """
    from smlm_pb.networks.inference import can_use_integers

    check_name(asked)
    if asked == INT8 and not can_use_integers(model.network):
        raise ConfigurationError(
            f"precision = 'int8' is there for residual networks on processors that torch has such operations for, not "
            f"for model '{model.card.name}' on {model.device}: use auto."
        )
    if asked != "auto":
        return asked
    kinds = _kinds_worth_trying(model)
    if not kinds:
        return FLOAT32
    known = _Verdicts(model)
    return next((kind for kind in _by_speed(known.speed_ups(kinds)) if known.check(kind).passes), FLOAT32)


def is_settled(model: Model, asked: str = "auto") -> bool:
    """Whether :func:`choose_precision` knows the answer; otherwise it takes some seconds to find it out."""
    kinds = _kinds_worth_trying(model) if asked == "auto" else []
    return not kinds or _Verdicts(model).are_known(kinds)


def kinds_of(model: Model) -> list[str]:
    """Arithmetic of fewer digits that the device of a model computes with."""
    from smlm_pb.networks.inference import can_use_integers

    kinds = [BFLOAT16] if device_has_bfloat16(model.device) else []
    return [*kinds, INT8] if processor_has_integers() and can_use_integers(model.network) else kinds


def _kinds_worth_trying(model: Model) -> list[str]:
    return kinds_of(model) if model.card.network.get("channels", 0) >= _LEAST_CHANNELS else []


def _by_speed(speed_ups: dict[str, float]) -> list[str]:
    """Those that are faster than float32, the fastest first."""
    faster = [kind for kind, speed in speed_ups.items() if speed >= _LEAST_SPEED_UP]
    return sorted(faster, key=speed_ups.__getitem__, reverse=True)


def processor_has_integers() -> bool:
    """Whether the processor adds up products of 8-bit integers by itself."""
    import torch

    found = getattr(torch.cpu, "_is_vnni_supported", bool)()
    return bool(found) or not {"avx512_vnni", "avx_vnni"}.isdisjoint(_linux_processor_flags())


def device_has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by itself: newer processors, and Nvidia's cards from 2020 on."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and processor_has_bfloat16()


def check_name(asked: str) -> None:
    """Refuse what is no kind of arithmetic."""
    if asked not in PRECISIONS:
        raise ConfigurationError(f"precision = {asked!r} is unknown: use {', '.join(PRECISIONS)}.")


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself, and does not imitate it."""
    import torch

    if platform.machine().lower() in ("arm64", "aarch64"):
        return "bf16" in _linux_processor_flags()
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if any(getattr(torch.cpu, name, bool)() for name in names):
        return True
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_linux_processor_flags())


def _linux_processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, ":").partition(":")[2].split())


# -- what is fastest -------------------------------------------------------------------------------------------


def measure_speed_ups(model: Model, kinds: list[str]) -> dict[str, float]:
    """How many times as fast as in float32 a network is in other arithmetic, here and now.

    Parameters
    ----------
    model : Model
        The model on its device.
    kinds : list of {"bfloat16", "int8"}
        The arithmetic.

    Returns
    -------
    dict of str to float
    """
    import torch

    from smlm_pb.localization.candidate_finder import arithmetic
    from smlm_pb.networks.inference import FixedWidthNetwork

    width = sum(model.card.psf_sigma_px) / 2
    frames = torch.full((_TIMED_FRAMES, 1, _TIMED_PX, _TIMED_PX), 20.0, device=model.device)
    sigma = torch.full((_TIMED_FRAMES,), width, device=model.device)
    best = dict.fromkeys((FLOAT32, *kinds), float("inf"))
    with arithmetic(model.device):
        networks = {kind: FixedWidthNetwork(model.network, width, precision=kind) for kind in best}
        for _ in range(_REPEATS):
            for kind, network in networks.items():  # taking turns: what else the machine does hits all alike
                began = time.perf_counter()
                float(network(frames, sigma).logit.sum())
                best[kind] = min(best[kind], time.perf_counter() - began)
    return {kind: round(best[FLOAT32] / best[kind], 2) for kind in kinds}


# -- the verdict, remembered -----------------------------------------------------------------------------------


class _Verdicts:
    """What was found out about a model on this machine, and is found out when it is asked for the first time."""

    def __init__(self, model: Model) -> None:
        self._model, self._path, self._key = model, _cache_file(), _key(model)

    def speed_ups(self, kinds: list[str]) -> dict[str, float]:
        """See :func:`measure_speed_ups`."""
        found = self._known_speed_ups(kinds)
        if found is None:
            found = measure_speed_ups(self._model, kinds)
            self._keep("speed_ups", found)
        return found

    def check(self, kind: str) -> PrecisionCheck:
        """See :func:`check_precision`."""
        check = self._known_check(kind)
        if check is None:
            check = check_precision(self._model, kind)
            self._keep(kind, asdict(check))
        return check

    def are_known(self, kinds: list[str]) -> bool:
        """Whether one of these kinds, or float32, can be chosen without finding out more."""
        speed_ups = self._known_speed_ups(kinds)
        for kind in _by_speed(speed_ups or {}):
            check = self._known_check(kind)
            if check is None or check.passes:
                return check is not None
        return speed_ups is not None

    def _known_speed_ups(self, kinds: list[str]) -> dict[str, float] | None:
        known = self._known().get("speed_ups", {})
        if isinstance(known, dict) and all(isinstance(known.get(kind), float) for kind in kinds):
            return {kind: known[kind] for kind in kinds}
        return None

    def _known_check(self, kind: str) -> PrecisionCheck | None:
        with suppress(KeyError, TypeError):
            return PrecisionCheck(**self._known()[kind])
        return None

    def _known(self) -> dict[str, Any]:
        known = self._all().get(self._key, {})
        return known if isinstance(known, dict) else {}

    def _all(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            known = json.loads(self._path.read_text(encoding="utf-8")) if self._path is not None else {}
            return known if isinstance(known, dict) else {}
        return {}

    def _keep(self, name: str, value: object) -> None:
        if self._path is None:
            return
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        kept = {**self._all(), self._key: {**self._known(), name: value}}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            part.replace(self._path)
        except OSError:  # found out again next time
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _cache_file() -> Path | None:
    folder = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(folder or Path.home() / ".cache") / "smlm-pb" / "arithmetic.json"
    except RuntimeError:  # nobody's home
        return None


def _key(model: Model) -> str:
    import torch

    where = (
        model.device.type,
        platform.machine(),
        sorted(f for f in _linux_processor_flags() if "16" in f or "vnni" in f),
    )
    if model.device.type == "cuda":
        where = (model.device.type, torch.cuda.get_device_name(model.device), [])
    parts = (model.card.weights_sha256, model.card.psf_sigma_px, __version__, torch.__version__, where)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
