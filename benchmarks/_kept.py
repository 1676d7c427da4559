"""Parts of a benchmark that are done, kept beside the trial runs: a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from _report import QUICK_RESULTS, to_json, write_text


def kept(benchmark: str, part: str, measure: Callable[[], Any]) -> Any:
    """Results of one part: from its file where it was measured before, else measured now and written.

    Parameters
    ----------
    benchmark, part : str
        Names; the part's must tell every setting that decides its results.
    measure : callable
        Returns plain values.
    """
    path = QUICK_RESULTS / benchmark / f"{part}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    found = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(found))
    return json.loads(path.read_text(encoding="utf-8"))
