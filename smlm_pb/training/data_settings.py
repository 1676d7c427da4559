"""Where training crops come from, if not from simulated scenes alone: the ``data`` and ``consistency`` sections."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smlm_pb.camera import Camera


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CameraSettings(_Section):
    """The camera of a movie, as its data sheet describes it."""

    offset_adu: float = Field(100.0, description="camera offset, ADU")
    e_per_adu: float = Field(1.0, gt=0, description="photo-electrons per ADU before electron multiplication")
    em_gain: float = Field(1.0, ge=1, description="electron-multiplication gain; 1 without")
    read_noise_e: float = Field(1.6, ge=0, description="read noise, e⁻")

    def camera(self) -> Camera:
        """The camera itself."""
        return Camera(**self.model_dump())


class MovieSettings(_Section):
    """A real movie that crops are taken from."""

    movie: str = Field(description="path of the movie")
    camera: CameraSettings = Field(default_factory=lambda: CameraSettings(), description="its camera")
    psf_sigma_px: float = Field(gt=0.3, lt=10, description="width of its point-spread function, px")
    frames: tuple[int, int] | None = Field(None, description="first frame and the one after the last; all if left out")
    flips: bool = Field(True, description="crops are also flipped and turned by quarter turns")

    @model_validator(mode="after")
    def _some_frames(self) -> MovieSettings:
        if self.frames is not None and not 0 <= self.frames[0] < self.frames[1]:
            raise ValueError(f"frames = {list(self.frames)} must satisfy 0 ≤ first < last + 1, e.g. [0, 1000]")
        return self


class LabelTable(_Section):
    """Positions of molecules of the movie, by one program or person."""

    table: str = Field(description="path of the table, in any known format")
    format: str | None = Field(None, description="its format; recognised by its content if left out")
    sigma_px: float = Field(
        0.0, ge=0, le=5, description="error of this source's positions per axis (registration, clicking), px"
    )
    own_sigma: bool = Field(
        True, description="whether sigma_x and sigma_y of the table are errors of its positions; added in quadrature"
    )
    shift_px: tuple[float, float] = Field(
        (0.0, 0.0), description="constant error of this source along x and y, px; taken off"
    )
    frames: Literal["all", "labelled"] = Field(
        "all",
        description="frames without a label between the first and the last label: empty (all), or not looked at "
        "by the labeller (labelled)",
    )


class DataSettings(MovieSettings):
    """A movie with positions or counts from elsewhere, from which the network learns."""

    pixel_size_nm: float | None = Field(None, gt=0, description="pixel size, for tables in nm that do not tell it")
    labels: tuple[LabelTable, ...] = Field((), description="tables of positions; each crop follows one of them")
    counts: str | None = Field(None, description="CSV with frame,count or frame,y0,x0,y1,x1,count")
    held_out: float = Field(0.15, gt=0, lt=1, description="share of the frames, the last ones, kept for validation")
    simulated_share: float = Field(
        0.0, ge=0, lt=1, description="share of crops of each step that are simulated scenes; with labels only"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> DataSettings:
        if bool(self.labels) == (self.counts is not None):
            raise ValueError("give either labels (tables of positions) or counts (a CSV), not both and not neither")
        if self.counts is not None and self.simulated_share:
            raise ValueError("simulated_share goes with labels; with counts give consistency, or train from labels")
        return self


class ConsistencySettings(MovieSettings):
    """A movie without labels, on which the network must count alike however a crop is turned and dimmed."""

    crops: int = Field(4, ge=1, le=64, description="crops of the movie in each step")
    weight: float = Field(0.05, gt=0, description="weight of the consistency once ramped up")
    form: Literal["taught", "equal"] = Field(
        "taught", description="taught: the view with all its light teaches the dimmed one; equal: as published, Eq. 7.4"
    )
    ramp: float = Field(0.3, ge=0, le=1, description="share of all steps in which the weight rises from 0")
    tile_px: int = Field(8, ge=2, le=64, description="side of the tiles in which counts are compared, px")
    keep_light: float = Field(
        0.7, gt=0, le=1, description="smallest share of the photo-electrons that the second view keeps"
    )
