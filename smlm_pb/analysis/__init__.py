"""From localizations to a result: images, quality, linking, filtering, drift."""

from smlm_pb.analysis.picture import save_image
from smlm_pb.analysis.rendering import Rendering, render

__all__ = ["Rendering", "render", "save_image"]
