"""Ways of teaching a network, under one interface: the default, its variants, and the baselines of the literature.

``method: NAME`` in an experiment file, or ``smlm-pb train --method NAME``, chooses one.
"""

from __future__ import annotations

import difflib

from smlm_pb.errors import ConfigurationError
from smlm_pb.training.methods.base import Method
from smlm_pb.training.methods.counting import L1, CountMse, GaussianCount, NoCount
from smlm_pb.training.methods.cross_entropy import CrossEntropy
from smlm_pb.training.methods.decode import Decode
from smlm_pb.training.methods.deep_watershed import DeepWatershed
from smlm_pb.training.methods.heatmap_matching import HeatmapMatching, Paper, PointKernels, Unnormalised
from smlm_pb.training.methods.label_smoothing import LabelSmoothing
from smlm_pb.training.methods.soft_jaccard import SoftJaccard
from smlm_pb.training.methods.squared_drawing import DeepStorm, HeatmapRefinement, Upsampling

__all__ = ["DEFAULT_METHOD", "METHODS", "Method", "find_method"]

#: All methods by name, the default first.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        HeatmapMatching(),
        PointKernels(),
        Unnormalised(),
        Paper(),
        SoftJaccard(),
        NoCount(),
        L1(),
        CountMse(),
        GaussianCount(),
        Decode(),
        CrossEntropy(),
        LabelSmoothing(),
        HeatmapRefinement(),
        Upsampling(),
        DeepStorm(),
        DeepWatershed(),
    )
}
DEFAULT_METHOD = HeatmapMatching.name


def find_method(name: str) -> Method:
    """Method of a name.

    Raises
    ------
    ConfigurationError
        When there is none; the known names are listed.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigurationError(f"Unknown method '{name}': {hint}known methods are {', '.join(METHODS)}.")
    return METHODS[name]
