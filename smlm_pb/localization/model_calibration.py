"""What a model's card knows of its network's honesty, applied to candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.crowding import reach_px, surroundings
from smlm_pb.localization.neighbour_pull import NeighbourPull
from smlm_pb.localization.neighbours import pairs_within
from smlm_pb.localization.own_light import Pixels, own_light
from smlm_pb.localization.sigma_calibration import SigmaCalibration, Stated
from smlm_pb.localization.statement_calibration import StatementCalibration, Statements, geometric_mean
from smlm_pb.population import UNKNOWN_POPULATION

if TYPE_CHECKING:
    from smlm_pb.localization.model_card import ModelCard


_NEEDED = ("frame", "x", "y", "sigma_x", "sigma_y", "photons", "background", "probability")


class Calibrated(NamedTuple):
    """What is true of candidates."""

    #: ``x``, ``y``, ``sigma_x``, ``sigma_y``, ``probability`` (n,), as far as they change.
    columns: dict[str, npt.NDArray[np.float32]]
    #: Expected number of molecules that no candidate stands for.
    missed: float = 0.0


@dataclass(frozen=True)
class ModelCalibration:
    """Turns what candidates state into what is true of them.

    Parameters
    ----------
    precision : SigmaCalibration or None
        Curves for the precision.
    statements : StatementCalibration or None
        Small network for probability, the rest of the precision, and missed molecules.
    pull : NeighbourPull or None
        Small network for the places of close candidates.
    """

    precision: SigmaCalibration | None = None
    statements: StatementCalibration | None = None
    pull: NeighbourPull | None = None

    @classmethod
    def from_card(cls, card: ModelCard) -> ModelCalibration:
        """What the card holds, which may be nothing.

        Raises
        ------
        ModelError
            When it is damaged.
        """
        return cls(
            SigmaCalibration.from_dict(card.sigma_calibration),
            StatementCalibration.from_dict(card.statement_calibration),
            NeighbourPull.from_dict(card.neighbour_pull),
        )

    def as_card(self) -> dict[str, dict[str, Any]]:
        """The fields of the card, ready for JSON."""
        return {
            "sigma_calibration": self.precision.as_dict() if self.precision else {},
            "statement_calibration": self.statements.as_dict() if self.statements else {},
            "neighbour_pull": self.pull.as_dict() if self.pull else {},
        }

    def apply(
        self,
        rows: Any,
        pixels: Pixels,
        *,
        psf_sigma_px: npt.ArrayLike,
        limit_px: npt.NDArray[np.float64],
        background_e: npt.NDArray[np.float64],
        excess_noise_factor: float = 1.0,
        population: npt.ArrayLike = UNKNOWN_POPULATION,
    ) -> Calibrated:
        """Calibrate candidates.

        Parameters
        ----------
        rows : structured array (n,), table, or mapping of columns
            Candidates, one per molecule, of whole frames.
        pixels : Pixels
            The frames in which they were found.
        psf_sigma_px : float or array (n,)
            PSF width, px.
        limit_px : array (n,)
            Smallest possible precision of each, were it alone, px.
        background_e : array (n,)
            Variance in a pixel under each without the molecule, e⁻, divided by the excess noise factor.
        excess_noise_factor : float
            By which the photons of the rows are larger than effective ones.
        population : array (4,) or (n, 4)
            See :class:`smlm_pb.localization.statement_calibration.Statements`.

        Returns
        -------
        Calibrated
        """
        place: dict[str, npt.NDArray[np.float32]] = {}
        judges = self.precision is not None or self.statements is not None
        # Looked for once: the pull moves candidates by less than their neighbours are looked for around them.
        near = pairs_within(rows, reach_px(psf_sigma_px)) if judges else None
        if self.pull is not None:
            place["x"], place["y"] = self.pull.apart(
                rows,
                psf_sigma_px=psf_sigma_px,
                background_e=background_e,
                excess_noise_factor=excess_noise_factor,
                near=near,
            )
        if near is None:
            return Calibrated(place)
        rows = {name: rows[name] for name in _NEEDED} | place
        near = near.moved(rows) if place else near
        around = surroundings(rows, psf_sigma_px, near)
        sigma = {name: rows[name] for name in ("sigma_x", "sigma_y")}
        if self.precision is not None:
            sigma = {n: self.precision.apply(Stated(v, limit_px, around.crowding)) for n, v in sigma.items()}
        if self.statements is None:
            return Calibrated(place | sigma)
        own = np.ones((len(limit_px), 2))
        if self.statements.looks_at_pixels:
            own = own_light(
                rows,
                pixels,
                psf_sigma_px=psf_sigma_px,
                background_e=background_e,
                excess_noise_factor=excess_noise_factor,
                near=near,
            )
        judged = self.statements.apply(
            Statements(
                probability=rows["probability"],
                sigma_px=geometric_mean(sigma["sigma_x"], sigma["sigma_y"]),
                limit_px=limit_px,
                photons=rows["photons"] / excess_noise_factor,
                background_e=background_e,
                around=around._replace(light_e=around.light_e / excess_noise_factor),
                own_light=own,
                psf_sigma_px=psf_sigma_px,
                population=population,
            )
        )
        columns = place | {name: values * judged.factor for name, values in sigma.items()}
        return Calibrated({**columns, "probability": judged.probability}, float(judged.missed.sum(dtype=np.float64)))
