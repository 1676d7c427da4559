"""The objective where molecules are of several classes: one set of candidates, one matching, one count per class.

Candidate ``k`` of a pixel belongs to class ``k mod C``. Each class is compared with its own molecules only, by
continuous heatmap matching and by its own Poisson-binomial count (Schroeter, PhD thesis, 2021, sections 2.1 and 2.2:
one distribution per class, their losses added). A molecule of uncertain class is shared out among the classes as the
data allow: the counts are proper scores, so the shares are probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from smlm_pb.training.objective import objective

if TYPE_CHECKING:
    from smlm_pb.networks import PointField
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import LossSettings


def of_class(field: PointField, number: int, n_classes: int) -> PointField:
    """The candidates of one class."""
    maps = {name: getattr(field, name)[:, number::n_classes] for name in field._fields if name != "background"}
    return field._replace(**maps)


def class_objective(
    field: PointField, batch: Batch, settings: LossSettings, n_classes: int, *, progress: float, reach_px: float
) -> dict[str, Tensor]:
    """Named terms, summed over classes; ``total`` is what is minimised.

    Parameters
    ----------
    field : PointField
        The network's output, with a multiple of ``n_classes`` candidates per pixel.
    batch : Batch
        Scenes and truth, with the class of every molecule.
    settings : LossSettings
        Weights and schedules.
    n_classes : int
        Number of classes.
    progress, reach_px : float
        As for :func:`smlm_pb.training.objective.objective`.
    """
    assert batch.label is not None
    sums: dict[str, Tensor] = {}
    # There is one background, however many classes look at it.
    shared = settings.model_copy(update={"background_weight": settings.background_weight / n_classes})
    for number in range(n_classes):
        mine = batch.label == number
        part = batch._replace(
            position=batch.position[mine], photons=batch.photons[mine], item=batch.item[mine], label=None
        )
        terms = objective(of_class(field, number, n_classes), part, shared, progress=progress, reach_px=reach_px)
        sums = {name: sums[name] + value if sums else value for name, value in terms.items()}
    return {**sums, "background": sums["background"] / n_classes}
