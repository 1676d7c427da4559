"""From localizations to a result: images, quality, linking, filtering, drift."""

from smlm_pb.analysis.drift import Drift, apply_drift, correct_drift, estimate_drift
from smlm_pb.analysis.duplicates import suppress_duplicates
from smlm_pb.analysis.filters import filter_by, filter_neighbours, filter_region
from smlm_pb.analysis.linking import link, merge_groups
from smlm_pb.analysis.photon_splitting import Repeatability, repeatability
from smlm_pb.analysis.picture import save_image
from smlm_pb.analysis.precision import Nena, nena
from smlm_pb.analysis.quality_report import Quality, quality
from smlm_pb.analysis.rendering import Rendering, render
from smlm_pb.analysis.report import write_report
from smlm_pb.analysis.residuals import ResidualMap, residual_map
from smlm_pb.analysis.resolution import Frc, frc
from smlm_pb.analysis.second_look import refine_table, verify
from smlm_pb.analysis.superposing import Superposition, superposition
from smlm_pb.analysis.switching import sub_frame_times
from smlm_pb.analysis.thinning import split_exposure
from smlm_pb.analysis.twin import DigitalTwin, digital_twin

__all__ = [
    "DigitalTwin",
    "Drift",
    "Frc",
    "Nena",
    "Quality",
    "Rendering",
    "Repeatability",
    "ResidualMap",
    "Superposition",
    "apply_drift",
    "correct_drift",
    "digital_twin",
    "estimate_drift",
    "filter_by",
    "filter_neighbours",
    "filter_region",
    "frc",
    "link",
    "merge_groups",
    "nena",
    "quality",
    "refine_table",
    "render",
    "repeatability",
    "residual_map",
    "save_image",
    "split_exposure",
    "sub_frame_times",
    "superposition",
    "suppress_duplicates",
    "verify",
    "write_report",
]
