"""The columns a table of molecules can have: name, type, unit, meaning and what other programs call them.

This is the only place where a column is declared. Readers, writers, the documentation and the tests are
derived from it. Columns that are not declared here are allowed in a table and are kept under their own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class ForeignName:
    """What another program calls a column, and in which unit it keeps it.

    Parameters
    ----------
    name : str
        The name in the file, without unit.
    unit : str
        The unit in the file, ``""`` for a pure number.
    """

    name: str
    unit: str

    def __str__(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


@dataclass(frozen=True)
class Column:
    """Declaration of one column.

    Parameters
    ----------
    name : str
        Name in memory and in our own text tables.
    dtype : str
        Numpy type in memory and on disk.
    unit : str
        Unit, ``""`` for a pure number.
    meaning : str
        One sentence for the user.
    required : bool
        Whether a table without it is refused.
    foreign : mapping from format to str
        Names in other programs' files, written ``name`` (in our unit) or ``name [unit]``; several spellings
        are separated by ``|``, the first is the one that is written, the others are understood on reading.
    fill : float
        What stands for an unknown value where a format has no way to say "unknown".
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    required: bool = False
    foreign: Mapping[str, str] = field(default_factory=dict)
    fill: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "foreign", MappingProxyType(dict(self.foreign)))

    def __reduce__(self) -> tuple[type[Column], tuple[object, ...]]:
        values = (
            self.name,
            self.dtype,
            self.unit,
            self.meaning,
            self.required,
            dict(self.foreign),
            self.fill,
        )
        return Column, values

    def foreign_names(self, format_name: str) -> tuple[ForeignName, ...]:
        """Spellings of this column in a format, the one that is written first; empty where it has none.

        Parameters
        ----------
        format_name : str
            Key of :data:`smlm_pb.formats.FORMATS`.

        Returns
        -------
        tuple of ForeignName
            With the unit the file uses; our own unit where the declaration names none.
        """
        spellings = self.foreign.get(format_name, "")
        names = []
        for spelling in filter(None, (part.strip() for part in spellings.split("|"))):
            name, bracket, unit = spelling.partition(" [")
            names.append(ForeignName(name, unit.rstrip("]") if bracket else self.unit))
        return tuple(names)


COLUMNS: tuple[Column, ...] = (
    Column(
        "frame",
        "u4",
        "",
        "Frame of the movie, counted from 0",
        required=True,
        foreign={
            "picasso": "frame",
            "thunderstorm": "frame",
            "smap": "frame",
            "smappy": "frame",
            "decode": "frame_ix",
            "challenge": "frame",
            "rapidstorm": "ImageNumber-0-0 | ImageNumber-0",
            "elyra": "First Frame",
            "nstorm": "Frame",
            "nanoimager": "Frame",
            "smlm": "frame | frame_number",
            "napari": "axis-0",
        },
    ),
    Column(
        "x",
        "f4",
        "px",
        "Position along the columns of the camera; the centre of the first pixel is 0",
        required=True,
        foreign={
            "picasso": "x",
            "thunderstorm": "x [nm]",
            "smap": "xnm [nm]",
            "smappy": "x_nm [nm] | x_pix",
            "decode": "y",
            "challenge": "xnano [nm]",
            "rapidstorm": "Position-0-0 [nm] | Position-0 [nm]",
            "elyra": "Position X [nm]",
            "nstorm": "Xc [nm] | X [nm]",
            "nanoimager": "X [nm]",
            "smlm": "x [nm] | position_x [nm]",
            "napari": "axis-2",
        },
    ),
    Column(
        "y",
        "f4",
        "px",
        "Position along the rows of the camera; the centre of the first pixel is 0",
        required=True,
        foreign={
            "picasso": "y",
            "thunderstorm": "y [nm]",
            "smap": "ynm [nm]",
            "smappy": "y_nm [nm] | y_pix",
            "decode": "x",
            "challenge": "ynano [nm]",
            "rapidstorm": "Position-1-0 [nm] | Position-1 [nm]",
            "elyra": "Position Y [nm]",
            "nstorm": "Yc [nm] | Y [nm]",
            "nanoimager": "Y [nm]",
            "smlm": "y [nm] | position_y [nm]",
            "napari": "axis-1",
        },
    ),
    Column(
        "photons",
        "f4",
        "e⁻",
        "Detected photo-electrons of the molecule in this frame",
        foreign={
            "picasso": "photons",
            "thunderstorm": "intensity [photon]",
            "smap": "phot",
            "smappy": "photons",
            "decode": "phot",
            "challenge": "intensity",
            "rapidstorm": "Amplitude-0-0 [photon] | Amplitude-0 [photon]",
            "elyra": "Number Photons",
            "nstorm": "Photons",
            "nanoimager": "Photons",
            "smlm": "intensity [photon] | photons",
            "napari": "photons",
        },
    ),
    Column(
        "background",
        "f4",
        "e⁻/px",
        "Background under the molecule, in photo-electrons per pixel",
        foreign={
            "picasso": "bg",
            "thunderstorm": "offset [photon]",
            "smap": "bg",
            "smappy": "background",
            "decode": "bg",
            "rapidstorm": "LocalBackground-0-0 [photon]",
            "nanoimager": "Background",
            "smlm": "background [photon] | local_background",
            "napari": "background",
        },
    ),
    Column(
        "sigma_x",
        "f4",
        "px",
        "Localization precision along x: standard deviation of the position error",
        foreign={
            "picasso": "lpx",
            "thunderstorm": "uncertainty_xy [nm] | uncertainty [nm]",
            "smap": "xnmerr [nm] | locprecnm [nm]",
            "smappy": "x_err_nm [nm] | x_err_pix | xy_err_nm [nm]",
            "decode": "y_sig",
            "rapidstorm": "Position-0-0-uncertainty [nm]",
            "elyra": "Precision [nm]",
            "nstorm": "Lateral Localization Accuracy [nm]",
            "nanoimager": "X precision [nm] | X precision [pix]",
            "smlm": "x_precision [nm] | uncertainty_x [nm] | uncertainty [nm]",
            "napari": "sigma_x",
        },
        fill=1.0,
    ),
    Column(
        "sigma_y",
        "f4",
        "px",
        "Localization precision along y: standard deviation of the position error",
        foreign={
            "picasso": "lpy",
            "thunderstorm": "uncertainty_xy [nm] | uncertainty [nm]",
            "smap": "ynmerr [nm] | locprecnm [nm]",
            "smappy": "y_err_nm [nm] | y_err_pix | xy_err_nm [nm]",
            "decode": "x_sig",
            "rapidstorm": "Position-1-0-uncertainty [nm]",
            "elyra": "Precision [nm]",
            "nstorm": "Lateral Localization Accuracy [nm]",
            "nanoimager": "Y precision [nm] | Y precision [pix]",
            "smlm": "y_precision [nm] | uncertainty_y [nm] | uncertainty [nm]",
            "napari": "sigma_y",
        },
        fill=1.0,
    ),
    Column(
        "probability",
        "f4",
        "",
        "Probability that the molecule exists",
        foreign={"picasso": "probability", "decode": "prob", "napari": "probability"},
    ),
    Column(
        "sigma_photons",
        "f4",
        "e⁻",
        "Standard deviation of the error of the photons",
        foreign={
            "picasso": "photons_unc",
            "smap": "photerr",
            "smappy": "photons_err",
            "decode": "phot_sig",
            "napari": "sigma_photons",
        },
    ),
    Column(
        "z",
        "f4",
        "nm",
        "Axial position; 0 at the focus",
        foreign={
            "picasso": "z",
            "thunderstorm": "z [nm]",
            "smap": "znm [nm]",
            "smappy": "z_nm [nm]",
            "decode": "z",
            "challenge": "znano [nm]",
            "rapidstorm": "Position-2-0 [nm] | Position-2 [nm]",
            "elyra": "Position Z [nm]",
            "nstorm": "Zc [nm] | Z [nm]",
            "nanoimager": "Z [nm]",
            "smlm": "z [nm] | position_z [nm]",
            "napari": "z",
        },
    ),
    Column(
        "sigma_z",
        "f4",
        "nm",
        "Localization precision along z",
        foreign={
            "picasso": "lpz",
            "thunderstorm": "uncertainty_z [nm]",
            "smap": "locprecznm [nm]",
            "smappy": "z_err_nm [nm]",
            "decode": "z_sig",
            "rapidstorm": "Position-2-0-uncertainty [nm]",
            "elyra": "Precision Z [nm]",
            "nstorm": "Axial Localization Accuracy [nm]",
            "nanoimager": "Z precision [nm]",
            "smlm": "z_precision [nm] | uncertainty_z [nm]",
            "napari": "sigma_z",
        },
        fill=100.0,
    ),
    Column(
        "psf_sigma_x",
        "f4",
        "px",
        "Width (Gaussian sigma) of the spot along x",
        foreign={
            "picasso": "sx",
            "thunderstorm": "sigma1 [nm] | sigma [nm]",
            "smap": "PSFxnm [nm]",
            "smappy": "sigma_x_nm [nm] | sigma_nm [nm] | sigma_x_pix | sigma_pix",
            "rapidstorm": "PSFWidth-0-0 [nm FWHM]",
            "nanoimager": "PSF Sigma X [pix]",
            "smlm": "psf_sigma_x [nm] | psf_sigma [nm]",
            "napari": "psf_sigma_x",
        },
        fill=1.0,
    ),
    Column(
        "psf_sigma_y",
        "f4",
        "px",
        "Width (Gaussian sigma) of the spot along y",
        foreign={
            "picasso": "sy",
            "thunderstorm": "sigma2 [nm] | sigma [nm]",
            "smap": "PSFynm [nm] | PSFxnm [nm]",
            "smappy": "sigma_y_nm [nm] | sigma_nm [nm] | sigma_y_pix | sigma_pix",
            "rapidstorm": "PSFWidth-1-0 [nm FWHM]",
            "nanoimager": "PSF Sigma Y [pix]",
            "smlm": "psf_sigma_y [nm] | psf_sigma [nm]",
            "napari": "psf_sigma_y",
        },
        fill=1.0,
    ),
    Column(
        "chi2",
        "f4",
        "",
        "Goodness of fit: chi-square of the spot against its model",
        foreign={
            "picasso": "chi2",
            "thunderstorm": "chi2",
            "rapidstorm": "FitResidues-0-0",
            "elyra": "Chi square",
            "smlm": "chi2 | chi_square",
            "napari": "chi2",
        },
    ),
    Column(
        "log_likelihood_ratio",
        "f4",
        "",
        "Logarithm of the likelihood with the molecule over that without it",
        foreign={"picasso": "log_likelihood_ratio", "napari": "log_likelihood_ratio"},
    ),
    Column(
        "refinement",
        "i4",
        "",
        "What the likelihood fit did: 0 network kept, 1 refined, 2 fit rejected and network kept",
        foreign={"picasso": "refinement", "napari": "refinement"},
    ),
    Column(
        "group",
        "i4",
        "",
        "Group the molecule belongs to, after linking, clustering or picking",
        foreign={"picasso": "group", "smap": "groupindex", "napari": "group"},
    ),
    Column(
        "on_frames",
        "u4",
        "",
        "Number of frames a linked molecule was on, first to last",
        foreign={"picasso": "len", "elyra": "Number Frames", "nstorm": "Length", "napari": "on_frames"},
    ),
    Column(
        "n_localizations",
        "u4",
        "",
        "Number of localizations a linked molecule was merged from",
        foreign={
            "picasso": "n",
            "thunderstorm": "detections",
            "smap": "numberInGroup",
            "napari": "n_localizations",
        },
    ),
    Column(
        "channel",
        "i4",
        "",
        "Colour channel, counted as in the file it comes from",
        foreign={
            "picasso": "channel",
            "smap": "channel",
            "smappy": "channel",
            "elyra": "Channel",
            "nanoimager": "Channel",
            "smlm": "channel",
            "napari": "channel",
        },
    ),
    Column(
        "correlation_xy",
        "f4",
        "",
        "Correlation of the position errors along x and y",
        foreign={"picasso": "correlation_xy", "napari": "correlation_xy"},
    ),
    Column(
        "first_probability",
        "f4",
        "",
        "Probability that the molecule exists before it was looked at a second time",
        foreign={"picasso": "first_probability", "napari": "first_probability"},
    ),
    Column(
        "copies",
        "i4",
        "",
        "Number of rows that the molecule was listed in before duplicates were removed",
        foreign={"picasso": "copies", "napari": "copies"},
    ),
    Column(
        "class",
        "i4",
        "",
        "Class of the molecule, counted from 0 as in the model's list of classes",
        foreign={"picasso": "class", "napari": "class"},
    ),
    Column(
        "class_probability",
        "f4",
        "",
        "Probability that the molecule is of this class, given that it exists",
        foreign={"picasso": "class_probability", "napari": "class_probability"},
    ),
    Column(
        "on_time",
        "f8",
        "",
        "Moment at which a linked molecule switched on, in frames: frame k lasts from k to k + 1",
        foreign={"picasso": "on_time", "napari": "on_time"},
    ),
    Column(
        "off_time",
        "f8",
        "",
        "Moment at which a linked molecule switched off, in frames",
        foreign={"picasso": "off_time", "napari": "off_time"},
    ),
    Column(
        "sigma_on_time",
        "f4",
        "",
        "Standard deviation of the error of on_time, in frames",
        foreign={"picasso": "sigma_on_time", "napari": "sigma_on_time"},
    ),
    Column(
        "sigma_off_time",
        "f4",
        "",
        "Standard deviation of the error of off_time, in frames",
        foreign={"picasso": "sigma_off_time", "napari": "sigma_off_time"},
    ),
)

#: The declared columns by name.
COLUMN_BY_NAME: Mapping[str, Column] = MappingProxyType({column.name: column for column in COLUMNS})

#: Columns that every localization run produces.
CORE_COLUMNS: tuple[str, ...] = (
    "frame",
    "x",
    "y",
    "photons",
    "background",
    "sigma_x",
    "sigma_y",
    "probability",
)
