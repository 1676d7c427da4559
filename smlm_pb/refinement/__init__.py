"""Likelihood: refine molecules, bound their precision, measure the PSF width."""

from smlm_pb.refinement.psf_width import PsfWidth, fit_psf_sigma
from smlm_pb.refinement.reference import Reference
from smlm_pb.refinement.table import ADDED_COLUMNS, MODES, Mode, check_mode, measure_reference, refine

__all__ = [
    "ADDED_COLUMNS",
    "MODES",
    "Mode",
    "PsfWidth",
    "Reference",
    "check_mode",
    "fit_psf_sigma",
    "measure_reference",
    "refine",
]
