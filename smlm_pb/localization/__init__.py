"""The main job: movie → blocks → network → candidates → table of molecules."""

from smlm_pb.localization.job import FinishedBlock
from smlm_pb.localization.model import Model, list_models, load_model
from smlm_pb.localization.model_card import ModelCard
from smlm_pb.localization.settings import Conditions, JobSettings
from smlm_pb.localization.threshold import Expectation
from smlm_pb.localization.to_file import FileResult, FileRun, localize_to_file
from smlm_pb.localization.to_table import LocalizationStopped, localize

__all__ = [
    "Conditions",
    "Expectation",
    "FileResult",
    "FileRun",
    "FinishedBlock",
    "JobSettings",
    "LocalizationStopped",
    "Model",
    "ModelCard",
    "list_models",
    "load_model",
    "localize",
    "localize_to_file",
]
