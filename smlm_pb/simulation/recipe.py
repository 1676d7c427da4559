"""The recipe: everything that decides a simulated movie, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smlm_pb.camera import Camera
from smlm_pb.configuration import read_yaml, validate
from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation.molecule_classes import MoleculeClass, checked_classes

if TYPE_CHECKING:
    from smlm_pb.simulation.sampled_psf import SampledPsf

_SIGMA_PX = 1.1


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PsfRecipe(_Section):
    """Point-spread function."""

    sigma_px: float = Field(
        _SIGMA_PX, ge=0.3, le=10, description="width of the Gaussian spot in pixels", examples=[1.1]
    )
    spread: float = Field(
        0.0, ge=0, le=0.3, description="relative spread of the width between molecules", examples=[0.02]
    )
    file: str | None = Field(
        None,
        min_length=1,
        description="measured PSF instead of a Gaussian: TIFF or .npy with one picture, beside the recipe",
        examples=["psf.tif"],
    )
    samples_per_px: float | None = Field(
        None,
        gt=0,
        le=64,
        description="samples of `file` per camera pixel; null: as the file says, else 1",
        examples=[1],
    )

    @model_validator(mode="after")
    def _one_shape(self) -> PsfRecipe:
        if self.file is None and self.samples_per_px is not None:
            raise ValueError("samples_per_px goes with file")
        if self.file is not None and (self.sigma_px != _SIGMA_PX or self.spread):
            raise ValueError("a file gives the whole PSF: leave out sigma_px and spread")
        return self

    def sampled(self) -> SampledPsf | None:
        """Read the measured PSF; None where the PSF is a Gaussian.

        Raises
        ------
        ConfigurationError
            When the file cannot be read or holds no PSF.
        """
        from smlm_pb.simulation.sampled_psf import read_psf

        return None if self.file is None else read_psf(self.file, self.samples_per_px)


class BlinkingRecipe(_Section):
    """Exponential on- and off-times."""

    on_frames: float = Field(1.5, ge=0.05, le=1e6, description="mean on-time in frames", examples=[1.5])
    off_frames: float = Field(200.0, ge=0.05, le=1e9, description="mean off-time in frames", examples=[200])
    blinks: float | None = Field(
        None, ge=1, description="mean number of blinks before bleaching; null: never bleaches", examples=[20]
    )


class ClassRecipe(_Section):
    """One class of molecules."""

    name: str = Field(min_length=1, description="name of the class", examples=["red"])
    share: float = Field(1.0, gt=0, description="share of the molecules, relative to the others", examples=[1])
    width_x: float = Field(1.0, ge=0.3, le=4, description="PSF width along x, in units of psf.sigma_px", examples=[1.3])
    width_y: float = Field(1.0, ge=0.3, le=4, description="PSF width along y, likewise", examples=[1.3])
    photons: float = Field(1.0, gt=0, description="brightness in units of molecules.photons", examples=[1])


class MoleculesRecipe(_Section):
    """How many molecules shine, how brightly, and for how long."""

    density_per_um2: float | None = Field(
        None,
        gt=0,
        le=200,
        description="mean number of molecules per µm² of the frame that shine at one moment",
        examples=[2.0],
    )
    per_frame: int | None = Field(
        None, ge=1, le=1_000_000, description="exact number of molecules in every frame", examples=[1]
    )
    photons: float = Field(
        3000.0,
        gt=0,
        le=1e7,
        description="mean photons on the camera of a molecule that shines for a whole frame",
        examples=[3000],
    )
    photon_distribution: Literal["constant", "lognormal", "exponential"] = Field(
        "lognormal", description="how molecules differ in brightness", examples=["lognormal"]
    )
    photon_spread: float = Field(
        0.3, ge=0, le=2, description="standard deviation of ln(photons), for lognormal", examples=[0.3]
    )
    min_photons: float = Field(
        50.0,
        ge=0,
        description="molecules that leave fewer photo-electrons in a frame are in its image but not in the truth",
        examples=[50],
    )
    blinking: BlinkingRecipe | None = Field(
        None,
        description="null: every frame draws new molecules, which shine for the whole frame",
        examples=["{on_frames: 1.5, off_frames: 200}"],
    )

    classes: tuple[ClassRecipe, ...] = Field(
        (),
        description="classes of molecules, such as two colours or two PSFs; empty: all are alike",
        examples=["[{name: red, width_x: 1.3, width_y: 1.3}, {name: green}]"],
    )

    @model_validator(mode="after")
    def _classes_differ(self) -> MoleculesRecipe:
        try:
            self.molecule_classes()
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return self

    def molecule_classes(self) -> tuple[MoleculeClass, ...]:
        """The classes, as the simulator takes them."""
        return checked_classes([one.model_dump() for one in self.classes])

    @model_validator(mode="after")
    def _one_number(self) -> MoleculesRecipe:
        if (self.density_per_um2 is None) == (self.per_frame is None):
            raise ValueError("give either density_per_um2 or per_frame, not both and not neither")
        if self.per_frame is not None and self.blinking is not None:
            raise ValueError("per_frame draws new molecules in every frame; give density_per_um2 with blinking")
        return self


class EmptyStructure(_Section):
    """No molecules at all."""

    kind: Literal["empty"]


class UniformStructure(_Section):
    """Molecules anywhere."""

    kind: Literal["uniform"]


class FilamentsStructure(_Section):
    """Smooth curves, e.g. microtubules."""

    kind: Literal["filaments"]
    count: int = Field(10, ge=1, le=10_000, description="number of filaments", examples=[10])
    width_nm: float = Field(25.0, ge=0, le=2000, description="full width over which labels spread", examples=[25])
    persistence_um: float = Field(
        20.0, gt=0, le=1e5, description="persistence length; small values bend more", examples=[20]
    )
    bundle_size: int = Field(1, ge=1, le=100, description="filaments that run together", examples=[1])
    bundle_gap_nm: float = Field(
        100.0, ge=0, le=10_000, description="distance of neighbours in a bundle", examples=[100]
    )
    length_um: float | None = Field(None, gt=0, le=1e4, description="length; null: from edge to edge", examples=[5])


_Ranges = Annotated[tuple[float, float], Field(description="smallest and largest", examples=["[50, 200]"])]


class RingsStructure(_Section):
    """Circles, e.g. vesicles; with 8 corners nuclear pores."""

    kind: Literal["rings"]
    count: int = Field(20, ge=1, le=100_000, description="number of rings", examples=[20])
    radius_nm: _Ranges = Field((50.0, 200.0), description="smallest and largest", examples=["[50, 200]"])
    corners: int = Field(0, ge=0, le=64, description="labelled corners; 0: the whole circle", examples=[8])
    width_nm: float = Field(10.0, ge=0, le=1000, description="spread of labels around the ring", examples=[10])

    @model_validator(mode="after")
    def _ordered(self) -> RingsStructure:
        _check_range("radius_nm", self.radius_nm)
        return self


class ClustersStructure(_Section):
    """Gaussian clouds."""

    kind: Literal["clusters"]
    count: int = Field(20, ge=1, le=100_000, description="number of clusters", examples=[20])
    sigma_nm: _Ranges = Field((30.0, 150.0), description="smallest and largest", examples=["[30, 150]"])

    @model_validator(mode="after")
    def _ordered(self) -> ClustersStructure:
        _check_range("sigma_nm", self.sigma_nm)
        return self


class StarStructure(_Section):
    """Siemens star around the frame's centre: shows which detail is resolved."""

    kind: Literal["star"]
    arms: int = Field(12, ge=2, le=500, description="number of arms", examples=[12])
    radius_um: float | None = Field(None, gt=0, le=1e4, description="radius; null: fills the frame", examples=[3])


class GridStructure(_Section):
    """Nodes of a square grid, each displaced at random."""

    kind: Literal["grid"]
    spacing_nm: float = Field(1600.0, gt=0, le=1e6, description="distance between nodes", examples=[1600])
    jitter_nm: float = Field(100.0, ge=0, le=1e6, description="largest displacement along x and y", examples=[100])


class MixtureStructure(_Section):
    """Several structures together."""

    kind: Literal["mixture"]
    parts: tuple[PartRecipe, ...] = Field(min_length=1, description="structures with their shares")


StructureRecipe = Annotated[
    EmptyStructure
    | UniformStructure
    | FilamentsStructure
    | RingsStructure
    | ClustersStructure
    | StarStructure
    | GridStructure
    | MixtureStructure,
    Field(discriminator="kind"),
]


class PartRecipe(_Section):
    """One structure of a mixture."""

    share: float = Field(gt=0, description="share of the molecules, relative to the others", examples=[0.5])
    structure: StructureRecipe = Field(description="where these molecules sit", examples=["{kind: uniform}"])


class BackgroundRecipe(_Section):
    """Light that comes from nowhere in particular."""

    photons_per_px: float = Field(20.0, ge=0, le=1e6, description="mean background per pixel and frame", examples=[20])
    shape: Literal["flat", "gradient", "blobs", "haze"] = Field(
        "flat", description="haze: out-of-focus light of the structure itself", examples=["flat"]
    )
    contrast: float = Field(
        0.5, ge=0, le=1, description="part of the background that varies, unless flat", examples=[0.5]
    )
    decay_frames: float | None = Field(
        None, gt=0, description="time constant of its exponential decay; null: constant", examples=[2000]
    )


class CameraRecipe(_Section):
    """As in :class:`smlm_pb.camera.Camera`."""

    offset_adu: float = Field(100.0, ge=0, le=60_000, description="baseline in ADU", examples=[100])
    e_per_adu: float = Field(1.0, gt=0, le=1000, description="electrons per ADU before gain", examples=[0.5])
    em_gain: float = Field(1.0, ge=1, le=10_000, description="electron-multiplication gain", examples=[1])
    read_noise_e: float = Field(
        1.6, ge=0, le=1000, description="standard deviation in e⁻, before division by the gain", examples=[1.6]
    )
    quantum_efficiency: float = Field(1.0, gt=0, le=1, description="photo-electrons per photon", examples=[0.9])

    def camera(self) -> Camera:
        """Return the camera itself."""
        return Camera(**self.model_dump())


class Recipe(_Section):
    """Everything that decides a simulated movie.

    Lengths of structures are in nm and µm, the PSF in pixels, light in photons on the camera (times the quantum
    efficiency: photo-electrons).

    Examples
    --------
    >>> recipe = Recipe.from_dict({"frames": 10, "molecules": {"density_per_um2": 1.0}})
    >>> recipe.structure.kind
    'uniform'
    """

    name: str = Field("simulation", min_length=1, max_length=200, description="name for people", examples=["test"])
    seed: int = Field(0, ge=0, description="seed of all randomness", examples=[1])
    frames: int = Field(ge=1, le=10_000_000, description="length of the movie", examples=[300])
    height: int = Field(64, ge=1, le=16_384, description="rows of a frame", examples=[64])
    width: int = Field(64, ge=1, le=16_384, description="columns of a frame", examples=[64])
    pixel_size_nm: float = Field(100.0, gt=0, le=10_000, description="edge of a pixel in the sample", examples=[100])
    exposure_ms: float | None = Field(
        None, gt=0, description="time per frame, only written into the movie's metadata", examples=[30]
    )
    psf: PsfRecipe = Field(PsfRecipe(), description="point-spread function", examples=["{sigma_px: 1.1}"])
    structure: StructureRecipe = Field(
        UniformStructure(kind="uniform"), description="where molecules sit", examples=["{kind: filaments}"]
    )
    molecules: MoleculesRecipe = Field(
        description="how many and how bright", examples=["{density_per_um2: 2.0, photons: 3000}"]
    )
    background: BackgroundRecipe = Field(
        BackgroundRecipe(), description="background light", examples=["{photons_per_px: 20}"]
    )
    camera: CameraRecipe = Field(CameraRecipe(), description="the camera", examples=["{offset_adu: 100}"])

    @model_validator(mode="after")
    def _classes_have_gaussian_psfs(self) -> Recipe:
        if self.molecules.classes and self.psf.file is not None:
            raise ValueError("molecules.classes are widths of a Gaussian: leave out them or psf.file")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Read a recipe file.

        Parameters
        ----------
        path : str or Path
            YAML file.

        Returns
        -------
        Recipe

        Raises
        ------
        ConfigurationError
            When the file cannot be read, or a key or value in it is wrong.

        Notes
        -----
        A PSF file is looked for beside the recipe.
        """
        recipe = cls.from_dict(read_yaml(path), source=Path(path).name)
        if recipe.psf.file is None:
            return recipe
        beside = str(Path(path).resolve().parent / recipe.psf.file)
        return recipe.model_copy(update={"psf": recipe.psf.model_copy(update={"file": beside})})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
        """Make a recipe of plain values.

        Parameters
        ----------
        values : mapping
            As a YAML file would hold them.
        source : str
            Where they come from, for error messages.

        Returns
        -------
        Recipe

        Raises
        ------
        ConfigurationError
            When a key or value is wrong.
        """
        return validate(cls, values, source)

    def as_dict(self) -> dict[str, Any]:
        """Plain values with every default filled in, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.height, self.width

    @property
    def area_um2(self) -> float:
        """Area of a frame in µm²."""
        return self.height * self.width * (self.pixel_size_nm / 1000.0) ** 2


def _check_range(name: str, value: tuple[float, float]) -> None:
    if not 0 < value[0] <= value[1]:
        raise ValueError(
            f"{name} = [{value[0]:g}, {value[1]:g}] must hold a smallest and a largest length > 0, e.g. [50, 200]"
        )


MixtureStructure.model_rebuild()
Recipe.model_rebuild()
