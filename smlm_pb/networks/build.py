"""From settings to a network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smlm_pb.networks.backbones import Backbone, PaperBackbone, ResidualBackbone
from smlm_pb.networks.context import image_channels
from smlm_pb.networks.gaussian_fits import GaussianFits
from smlm_pb.networks.local_maxima import LocalMaxima
from smlm_pb.networks.map_network import Finder, MapNetwork
from smlm_pb.networks.offset_regression import OffsetRegressionNetwork
from smlm_pb.networks.watershed import Watershed

#: Ways from the features to positions.
ReadOut = Literal["offsets", "peaks", "blurred-peaks", "probability-peaks", "fits", "watershed"]

#: Any network that says where molecules are.
PointNetwork = OffsetRegressionNetwork | MapNetwork


class NetworkSettings(BaseModel):
    """Everything needed to build a network; stored beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone: Literal["residual", "paper"] = Field(
        "residual", description="full-resolution residual net, or the published 4-layer net"
    )
    channels: int = Field(48, ge=4, le=512, description="width of the residual backbone")
    blocks: int = Field(6, ge=1, le=64, description="residual blocks of two convolutions each")
    n_candidates: int = Field(2, ge=1, le=8, description="candidates per pixel")
    reach_px: float = Field(
        0.6, ge=0.5, le=1.5, description="largest offset of a candidate from its pixel's centre, px"
    )
    told: Literal["psf", "population", "arrangement"] = Field(
        "psf",
        description="what the network is told beside the image: the PSF width, or also how bright and how many the "
        "movie's molecules are, or also how crowded they lie",
    )
    mixed_kernels: int = Field(
        0,
        ge=0,
        le=16,
        description="further kernels of every convolution of the residual net that are mixed by what it is told; "
        "they are folded into its weights before a movie is looked at, and cost training time only",
    )
    context_frames: int = Field(
        0, ge=0, le=1, description="frames before and after the one that is looked at, which the network sees too"
    )
    start_logit: float = Field(-4.0, description="existence logit before training")
    read_out: ReadOut = Field(
        "offsets",
        description="where positions come from: 'offsets' are regressed; all others are read from a drawing and belong "
        "to a `method`, which sets them",
    )
    upsampling: int = Field(1, ge=1, le=16, description="pixels of the drawing along each side of a camera pixel")
    drawn_width_px: float = Field(
        1.0,
        gt=0,
        le=4,
        description="standard deviation of a molecule in the drawing, or radius of its cone (watershed), camera px",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> NetworkSettings:
        if self.read_out == "fits" and self.upsampling != 1:
            raise ValueError(f"upsampling = {self.upsampling} does not go with read_out = 'fits': set it to 1")
        if self.context_frames and self.read_out != "offsets":
            raise ValueError(
                f"context_frames = {self.context_frames} does not go with read_out = '{self.read_out}': set it to 0"
            )
        return self


def build_network(settings: NetworkSettings) -> PointNetwork:
    """Build an untrained network.

    Parameters
    ----------
    settings : NetworkSettings
        Kind and size.

    Returns
    -------
    PointNetwork
        With random weights from torch's global generator.
    """
    backbone: Backbone
    channels = image_channels(settings.context_frames)
    if settings.backbone == "paper":
        backbone, head_size = PaperBackbone(channels), 3
    else:
        backbone, head_size = (
            ResidualBackbone(channels, settings.channels, settings.blocks, settings.told, settings.mixed_kernels),
            1,
        )
    if settings.read_out != "offsets":
        return MapNetwork(backbone, _finder(settings), n_candidates=settings.n_candidates)
    return OffsetRegressionNetwork(
        backbone,
        n_candidates=settings.n_candidates,
        reach_px=settings.reach_px,
        head_size=head_size,
        start_logit=settings.start_logit,
        context_frames=settings.context_frames,
    )


def _finder(settings: NetworkSettings) -> Finder:
    """What reads positions from the drawing."""
    factor, width_px = settings.upsampling, settings.drawn_width_px
    match settings.read_out:
        case "fits":
            return GaussianFits(width_px, settings.n_candidates)
        case "watershed":
            return Watershed(factor)
        case "blurred-peaks":
            return LocalMaxima(factor, values="blurred", blur_px=width_px * factor)
        case "probability-peaks":
            return LocalMaxima(factor, values="sigmoid")
    return LocalMaxima(factor)
