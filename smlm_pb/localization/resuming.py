"""Whether what lies on disk belongs to the run that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smlm_pb.errors import ConfigurationError, OutputError, TableError


def read_provenance(target: Path) -> dict[str, Any]:
    """The step of a finished table's history that says how it was localized.

    Raises
    ------
    OutputError
        When it is no table, or was not localized here.
    """
    import h5py

    from smlm_pb.formats.native_metadata import from_documents, load_json

    try:
        with h5py.File(target, "r") as file:
            _, steps = from_documents(load_json(file["metadata"][()], str(target)))
    except (OSError, KeyError, TableError) as error:
        raise OutputError(
            f"{target} is no table of a finished run: remove it, or allow overwriting (overwrite=True)."
        ) from error
    for step in reversed(steps):
        if step.get("step") == "localize":
            return step
    raise OutputError(f"{target} was not made by localizing a movie: remove it, or allow overwriting (overwrite=True).")


def refuse_other_settings(stored: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Two halves made with different settings are not one result.

    Parameters
    ----------
    stored, asked : dict
        From :func:`smlm_pb.localization.job.identify`, of the run on disk and of the present one.
    path : Path
        Where ``stored`` comes from, for the message.

    Raises
    ------
    ConfigurationError
        Which names the first setting that differs.
    """
    for name in [*asked, *(key for key in stored if key not in asked)]:
        before, now = stored.get(name), asked.get(name)
        if before == now:
            continue
        if name == "movie":
            raise ConfigurationError(
                f"{path} belongs to another movie than the one given: correct the path, or start anew with "
                "overwrite=True."
            )
        if name == "model" and isinstance(before, dict):
            before, now = (f"{m.get('name')} ({str(m.get('sha256'))[:8]})" for m in (before, asked[name]))
        raise ConfigurationError(
            f"{path} was made with other settings: {name} is {before!r} there and {now!r} here; give the same {name}, "
            "or start anew with overwrite=True."
        )
