"""The pipeline file: from a movie to a report, every step with the options of its command.

A step that stands in the file is done, with its defaults where nothing stands below it; a step that does not stand in
it is left out. The order is always that of :data:`STEPS`. Paths are relative to the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from smlm_pb.configuration import read_yaml, validate
from smlm_pb.errors import ConfigurationError

STEPS = ("localize", "filter", "drift", "link", "quality", "residuals", "twin", "superposition", "render", "report")

_Corners = tuple[float, float, float, float]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class LocalizeStep(_Section):
    """Options of ``smlm-pb localize``."""

    pixel_size_nm: float | None = Field(None, gt=0, description="pixel size in the sample in nm", examples=[100])
    offset_adu: float | None = Field(None, description="camera offset in ADU", examples=[100])
    e_per_adu: float | None = Field(None, gt=0, description="photo-electrons per ADU before EM gain", examples=[0.5])
    em_gain: float | None = Field(None, ge=1, description="electron-multiplication gain; 1 without", examples=[1])
    read_noise_e: float | None = Field(
        None, ge=0, description="standard deviation of the camera's read noise, e⁻", examples=[1.6]
    )
    model: str = Field("default", min_length=1, description="a shipped model or a folder", examples=["default"])
    threshold: float | str = Field("auto", description="smallest probability that is kept", examples=["auto"])
    psf_sigma_px: float | None = Field(
        None, gt=0, description="width of the point-spread function in pixels", examples=[1.2]
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps", examples=["auto"])
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="arithmetic of the network", examples=["auto"]
    )
    frames: tuple[int, int | None] | None = Field(
        None, description="first frame and the one after the last", examples=["[0, 1000]"]
    )

    refine: Literal["off", "auto", "on"] = Field(
        "off", description="refine molecules by maximum likelihood", examples=["auto"]
    )
    workers: int | None = Field(None, ge=1, description="find the molecules in so many processes", examples=[4])
    scheduler: str | None = Field(
        None, min_length=1, description="Dask scheduler whose workers find the molecules", examples=["tcp://node1:8786"]
    )

    @model_validator(mode="after")
    def _one_place(self) -> LocalizeStep:
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("workers are processes here, scheduler has its own; give one of them")
        return self

    @field_validator("threshold")
    @classmethod
    def _threshold(cls, value: float | str) -> float | str:
        from smlm_pb.localization.threshold import check_threshold

        return _checked(lambda: "auto" if check_threshold(value) is None else value)

    @field_validator("frames", mode="before")
    @classmethod
    def _frames(cls, value: Any) -> Any:
        if isinstance(value, str) and (ends := re.fullmatch(r"(\d*):(\d*)", value.strip())):
            value = (int(ends[1] or 0), int(ends[2]) if ends[2] else None)
        if value is not None and not (isinstance(value, list | tuple) and len(value) == 2):
            # Without quotation marks YAML reads 10:50 as a number to the base of 60.
            raise ValueError(f"{value!r} is no range; write frames: [0, 1000], or in quotation marks '0:1000'")
        if value is not None and isinstance(value[0], int) and isinstance(value[1], int) and value[1] <= value[0]:
            raise ValueError(f"{list(value)} holds no frame; the second number must be larger than the first")
        return value


class FilterStep(_Section):
    """Options of ``smlm-pb filter``."""

    conditions: tuple[str, ...] = Field(
        (), description="what a molecule must fulfil", examples=["['photons > 500 and sigma_nm < 20']"]
    )
    roi: _Corners | None = Field(None, description="Y0, X0, Y1, X1 in camera pixels", examples=["[10, 10, 60, 60]"])
    min_neighbours: int | None = Field(None, ge=0, description="others within radius_nm", examples=[3])
    radius_nm: float | None = Field(None, gt=0, description="radius for min_neighbours", examples=[50])

    @field_validator("conditions", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> FilterStep:
        if (self.min_neighbours is None) != (self.radius_nm is None):
            raise ValueError("min_neighbours and radius_nm belong together; give both or neither")
        if not self.conditions and self.roi is None and self.min_neighbours is None:
            raise ValueError("there is no condition; give conditions: ['photons > 500'], or roi, or leave filter out")
        return self


class DriftStep(_Section):
    """Options of ``smlm-pb drift``."""

    method: Literal["kernel", "correlation", "fiducials", "comet"] = Field(
        "kernel", description="how it is found", examples=["kernel"]
    )
    max_drift_nm: float = Field(600.0, gt=0, description="largest displacement looked for, nm", examples=[600])
    stretches: int | None = Field(None, ge=2, description="stretches for correlation", examples=[20])
    check: bool = Field(True, description="accept only what helps held-out molecules", examples=["true"])
    seed: int = Field(0, ge=0, description="seed of the choice of molecules", examples=[0])


class LinkStep(_Section):
    """Options of ``smlm-pb link``."""

    radius_nm: float | None = Field(None, gt=0, description="largest distance that is joined", examples=[40])
    radius_sigma: float | None = Field(
        None, gt=0, description="the same in units of the precision of the pair", examples=[3.5]
    )
    max_dark_frames: int = Field(1, ge=0, description="frames a molecule may miss in between", examples=[1])
    keep_rows: bool = Field(False, description="keep every row and only number the blinks", examples=["false"])
    dark_times: bool = Field(False, description="add the column dark_frames", examples=["false"])

    @model_validator(mode="after")
    def _compatible(self) -> LinkStep:
        if self.keep_rows and self.dark_times:
            raise ValueError("dark_times needs whole blinks; give either keep_rows or dark_times")
        return self


class QualityStep(_Section):
    """Options of ``smlm-pb quality``; it looks at the molecules before linking."""

    blocks: int = Field(50, ge=2, description="stretches of the movie, dealt to the halves", examples=[50])
    repeats: int = Field(5, ge=1, description="splits of the data for the FRC", examples=[5])
    seed: int = Field(0, ge=0, description="seed of the splits", examples=[0])


class ResidualsStep(_Section):
    """Options of ``smlm-pb residuals``; it looks at the molecules as localized."""

    psf_sigma_px: float | None = Field(
        None, ge=0.3, description="width of the point-spread function, where the table is silent", examples=[1.2]
    )
    max_frames: int = Field(200, ge=1, description="frames to look at, evenly spread", examples=[200])
    tile_px: int = Field(16, ge=4, description="side of the tiles of χ²", examples=[16])
    least_score: float = Field(5.0, ge=3, description="standard deviations from which light counts", examples=[5])


class TwinStep(_Section):
    """Options of ``smlm-pb twin``; it looks at the molecules as localized."""

    model: str | None = Field(None, min_length=1, description="model; none: that of localize", examples=["default"])
    psf_sigma_px: float | None = Field(
        None, gt=0, description="width of the point-spread function, where the table is silent", examples=[1.2]
    )
    n_frames: int = Field(100, ge=2, description="length of the twin", examples=[100])
    tolerance_nm: float = Field(50.0, gt=0, description="distance of a right answer in nm", examples=[50])
    by: tuple[Literal["photons", "neighbour", "background", "border", "frame"], ...] = Field(
        ("neighbour", "photons"), description="what the errors are broken down by", examples=["[neighbour, photons]"]
    )
    seed: int = Field(0, ge=0, description="seed of the twin", examples=[0])


class SuperpositionStep(_Section):
    """Options of ``smlm-pb superposition``; camera, model and width are those of localize."""

    added: tuple[int, ...] = Field(
        (2, 4, 8, 16), min_length=1, description="how many frames are added", examples=["[2, 4, 8, 16]"]
    )
    max_frames: int = Field(256, ge=2, description="frames to use, evenly spread", examples=[256])
    gap_frames: int = Field(50, ge=1, description="least distance of the frames of one sum", examples=[50])
    tolerance_nm: float | None = Field(
        None, gt=0, description="distance of a molecule that is found again", examples=[100]
    )
    least_jaccard: float = Field(0.8, gt=0, le=1, description="Jaccard index that counts as usable", examples=[0.8])

    @field_validator("added")
    @classmethod
    def _several(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 2:
            raise ValueError(f"{min(value)} frames cannot be added; write whole numbers from 2 on, e.g. [2, 4, 8, 16]")
        return value


class RenderStep(_Section):
    """Options of ``smlm-pb render``."""

    pixel_size_nm: float = Field(10.0, gt=0, description="edge of a pixel of the image in nm", examples=[10])
    method: Literal["gaussian", "histogram", "blur"] | None = Field(
        None, description="how molecules are drawn", examples=["gaussian"]
    )
    blur_nm: float | None = Field(None, ge=0, description="width of blur in nm", examples=[10])
    min_blur_nm: float = Field(0.0, ge=0, description="least width of gaussian in nm", examples=[5])
    roi: _Corners | None = Field(None, description="Y0, X0, Y1, X1 in camera pixels", examples=["[10, 10, 60, 60]"])
    colour_by: str | None = Field(None, description="column that colours the molecules", examples=["frame"])
    colour_limits: tuple[float, float] | None = Field(
        None, description="values at the ends of the colours", examples=["[0, 1000]"]
    )
    colormap: str | None = Field(None, description="a matplotlib colormap", examples=["hot"])
    percentile: float = Field(99.7, gt=0, le=100, description="percentile at full brightness", examples=[99.7])
    gamma: float = Field(1.0, gt=0, description="below 1 makes dim structures visible", examples=[0.7])
    scale_bar: bool = Field(True, description="whether to draw a scale bar", examples=["true"])
    dtype: Literal["float32", "uint16"] = Field("float32", description="values of a TIFF", examples=["float32"])
    endings: tuple[Literal["png", "tif", "ome.zarr"], ...] = Field(
        ("png",), min_length=1, description="kinds of image files", examples=["[png, tif]"]
    )


class ReportStep(_Section):
    """Options of ``smlm-pb report``."""

    title: str = Field("", description="heading; empty: the name of the movie", examples=["Cell 3"])
    pixel_size_nm: float = Field(10.0, gt=0, description="edge of a pixel of the image in nm", examples=[10])
    truth: str | None = Field(None, description="table of true molecules", examples=["truth.csv"])
    repeatability: bool = Field(False, description="also split the photons of the movie", examples=["false"])


class Pipeline(_Section):
    """What is done to a movie, or to a table that is there already.

    Examples
    --------
    >>> pipeline = Pipeline.from_dict({"locs": "movie_locs.hdf5", "link": {"radius_nm": 40}, "report": None})
    >>> pipeline.steps
    ('link', 'report')
    """

    movie: str | None = Field(None, description="file or folder of the movie", examples=["movie.tif"])
    locs: str | None = Field(
        None, description="table to start from, instead of localizing", examples=["movie_locs.hdf5"]
    )
    out: str = Field(".", description="folder for the results", examples=["results"])
    localize: LocalizeStep | None = Field(None, description="find the molecules", examples=["{pixel_size_nm: 100}"])
    filter: FilterStep | None = Field(None, description="keep some", examples=["{conditions: ['photons > 500']}"])
    drift: DriftStep | None = Field(None, description="correct the drift", examples=["{method: kernel}"])
    link: LinkStep | None = Field(None, description="join blinks", examples=["{max_dark_frames: 1}"])
    quality: QualityStep | None = Field(None, description="measure precision and resolution", examples=["{blocks: 50}"])
    residuals: ResidualsStep | None = Field(
        None, description="look at what is left over in the movie", examples=["{max_frames: 200}"]
    )
    twin: TwinStep | None = Field(None, description="tell what errors cost", examples=["{n_frames: 100}"])
    superposition: SuperpositionStep | None = Field(
        None, description="tell how dense the sample may be", examples=["{gap_frames: 50}"]
    )
    render: RenderStep | None = Field(None, description="draw the image", examples=["{pixel_size_nm: 10}"])
    report: ReportStep | None = Field(None, description="write the report", examples=["{title: Cell 3}"])

    @model_validator(mode="after")
    def _has_a_start(self) -> Pipeline:
        if self.locs is None and self.movie is None:
            raise ValueError("there is nothing to start from; give movie: movie.tif, or locs: movie_locs.hdf5")
        if self.locs is not None and self.localize is not None:
            raise ValueError("locs starts from a table and localize makes one; leave one of them out")
        if self.locs is None and self.localize is None:
            raise ValueError("localize is left out, so a table must be there; give locs, or add localize")
        if self.report is not None and self.report.repeatability and self.movie is None:
            raise ValueError("report.repeatability splits the photons of a movie; give movie as well")
        for name in ("residuals", "superposition"):
            if getattr(self, name) is not None and self.movie is None:
                raise ValueError(f"{name} looks at the movie; give movie as well, or leave {name} out")
        if not self.steps:
            raise ValueError(f"there is nothing to do; add one of the steps {', '.join(STEPS[1:])}")
        return self

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that are done, in order."""
        return tuple(name for name in STEPS if getattr(self, name) is not None)

    @classmethod
    def from_yaml(cls, path: str | Path, *, movie: str | Path | None = None) -> Pipeline:
        """Read a pipeline file; paths in it become absolute.

        Parameters
        ----------
        path : str or Path
            YAML file.
        movie : str or Path, optional
            Movie to use instead of the one in the file; relative to the present folder.

        Returns
        -------
        Pipeline

        Raises
        ------
        ConfigurationError
            When the file cannot be read, or a key or value in it is wrong.
        """
        values = read_yaml(path)
        if movie is not None:
            values["movie"] = str(Path(movie).absolute())
        return cls.from_dict(values, source=Path(path).name).with_paths_from(Path(path).absolute().parent)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "pipeline") -> Pipeline:
        """Make a pipeline of plain values; a step without a value, or with ``true``, is done with its defaults.

        Parameters
        ----------
        values : mapping
            As a YAML file would hold them.
        source : str
            Where they come from, for error messages.

        Returns
        -------
        Pipeline

        Raises
        ------
        ConfigurationError
            When a key or value is wrong.
        """
        plain = dict(values)
        for name in STEPS:
            if name in plain and (plain[name] is None or plain[name] is True):
                plain[name] = {}
            elif plain.get(name) is False:
                del plain[name]
        return validate(cls, plain, source)

    def with_paths_from(self, folder: Path) -> Pipeline:
        """The same with its relative paths taken from a folder."""

        def placed(path: str | None) -> str | None:
            return None if path is None else str(folder / Path(path).expanduser())

        changes: dict[str, Any] = {"movie": placed(self.movie), "locs": placed(self.locs), "out": placed(self.out)}
        if self.report is not None:
            changes["report"] = self.report.model_copy(update={"truth": placed(self.report.truth)})
        if self.localize is not None and (folder / self.localize.model).is_dir():
            changes["localize"] = self.localize.model_copy(update={"model": placed(self.localize.model)})
        return self.model_copy(update=changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values with every default filled in and the steps that are left out missing, ready for YAML."""
        plain = self.model_dump(mode="json")
        return {name: value for name, value in plain.items() if value is not None}


def _checked(check: Any) -> Any:
    """Turn our own complaint into one that the validation understands."""
    try:
        return check()
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
