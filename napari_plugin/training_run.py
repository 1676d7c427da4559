"""A training run in a process of its own: napari stays alive, and the run outlives it if it must.

The run is that of the command line, ``smlm-pb train``; what it has reached is read from its files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from smlm_pb.training import Experiment

_LOG = "training.log"
_EXPERIMENT = "experiment.yaml"
#: Of the log only the end is looked at.
_TAIL_BYTES = 20_000


@dataclass(frozen=True)
class TrainingState:
    """How far a training is.

    Parameters
    ----------
    done, total : int
        Steps.
    seconds_left : float or None
        As the run itself estimates them.
    history : list of dict
        One entry per validation: ``step``, ``loss``, ``validation``.
    running : bool
        Whether the process lives.
    failure : str
        What went wrong, in one line; empty otherwise.
    model : Path or None
        Folder of the best model, once it is there.
    """

    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    running: bool = False
    failure: str = ""
    model: Path | None = None


class TrainingRun:
    """One training.

    Parameters
    ----------
    experiment : Experiment
        What to train.
    folder : Path
        Folder of the run; made if missing.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None

    def start(self) -> None:
        """Write the experiment file and start the process.

        Raises
        ------
        OutputError
            When the folder cannot be written, or already holds a run.
        """
        import yaml

        from smlm_pb.errors import OutputError

        if (self.folder / "checkpoint.safetensors").exists() or (self.folder / self.experiment.name).exists():
            raise OutputError(f"{self.folder} already holds a training: choose another name or folder.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(self.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            (self.folder / _EXPERIMENT).write_text(text, encoding="utf-8")
            self._log = (self.folder / _LOG).open("wb")
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written ({error.strerror}): choose another folder.") from error
        command = [sys.executable, "-m", "smlm_pb", "train", str(self.folder / _EXPERIMENT)]
        command += ["--out", str(self.folder), "--progress", "json"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def stop(self) -> None:
        """Ask the run to end; it keeps the best model so far."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def state(self) -> TrainingState:
        """How far it is; reads a few small files."""
        process = self._process
        running = process is not None and process.poll() is None
        if not running and self._log is not None:
            self._log.close()
            self._log = None
        lines = self._tail()
        last: dict[str, Any] = next((report for line in reversed(lines) if (report := _report(line))), {})
        model = self.folder / self.experiment.name
        has_model = (model / "card.json").exists() and not running
        return TrainingState(
            done=int(last.get("done", 0)),
            total=int(last.get("total", self.experiment.steps)),
            seconds_left=last.get("seconds_left"),
            history=self._history(),
            running=running,
            failure="" if running or has_model or process is None else _failure(lines, process.returncode),
            model=model if has_model else None,
        )

    def _tail(self) -> list[str]:
        try:
            with (self.folder / _LOG).open("rb") as stream:
                stream.seek(0, 2)
                stream.seek(max(0, stream.tell() - _TAIL_BYTES))
                return stream.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []

    def _history(self) -> list[dict[str, Any]]:
        try:
            history = json.loads((self.folder / "history.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return history if isinstance(history, list) else []


def _report(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "done" in report else None


def _failure(lines: list[str], code: int | None) -> str:
    told = [line for line in lines if ": error:" in line]
    if told:
        return told[-1].partition(": error:")[2].strip()
    said = [line for line in lines if line.strip() and not line.startswith("{")]
    return f"The training ended without a model (exit code {code}): {said[-1] if said else 'it said nothing'}"
