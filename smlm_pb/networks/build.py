"""From settings to a network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from smlm_pb.networks.backbones import Backbone, PaperBackbone, ResidualBackbone
from smlm_pb.networks.offset_regression import OffsetRegressionNetwork

_IMAGE_CHANNELS = 2


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
    told: Literal["psf", "population"] = Field(
        "psf",
        description="what the network is told beside the image: the PSF width, or also how bright and how many the "
        "movie's molecules are",
    )
    start_logit: float = Field(-4.0, description="existence logit before training")


def build_network(settings: NetworkSettings) -> OffsetRegressionNetwork:
    """Build an untrained network.

    Parameters
    ----------
    settings : NetworkSettings
        Kind and size.

    Returns
    -------
    OffsetRegressionNetwork
        With random weights from torch's global generator.
    """
    backbone: Backbone
    if settings.backbone == "paper":
        backbone, head_size = PaperBackbone(_IMAGE_CHANNELS), 3
    else:
        backbone, head_size = ResidualBackbone(_IMAGE_CHANNELS, settings.channels, settings.blocks, settings.told), 1
    return OffsetRegressionNetwork(
        backbone,
        n_candidates=settings.n_candidates,
        reach_px=settings.reach_px,
        head_size=head_size,
        start_logit=settings.start_logit,
    )
