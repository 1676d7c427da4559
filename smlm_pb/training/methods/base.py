"""What a way of teaching a network consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from smlm_pb.networks import PointNetwork
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment


class Method:
    """A way of teaching: which network, what it is asked for, and how its answer is compared with the truth.

    The network itself turns its answer into a :class:`smlm_pb.networks.PointField`, so that validation, export and
    everything after training do not know by which method a model was made.
    """

    #: As it stands in an experiment file.
    name: ClassVar[str]
    #: One line for lists and figures.
    title: ClassVar[str]
    #: Where the idea comes from.
    source: ClassVar[str]
    #: Where positions come from; see :class:`smlm_pb.networks.NetworkSettings`.
    read_out: ClassVar[str] = "offsets"
    #: Settings of the network and of the loss in place of the usual defaults; an experiment file may change them.
    network: ClassVar[Mapping[str, Any]] = {}
    loss: ClassVar[Mapping[str, Any]] = {}

    def predict(self, network: PointNetwork, *inputs: Tensor | None) -> Any:
        """What the network says, in the form that :meth:`objective` compares; inputs as of the network."""
        return network(*inputs)

    def objective(
        self, network: PointNetwork, output: Any, batch: Batch, experiment: Experiment, progress: float
    ) -> dict[str, Tensor]:
        """Named terms, averaged over the scenes of the batch; ``total`` is what is minimised.

        Parameters
        ----------
        network : PointNetwork
            The network that is being trained.
        output : Any
            From :meth:`predict`.
        batch : Batch
            Scenes and truth.
        experiment : Experiment
            The run, with the settings of the loss.
        progress : float
            Share of the run that is done, which drives schedules.
        """
        raise NotImplementedError


def with_description(
    terms: dict[str, Tensor], described: Mapping[str, Tensor], experiment: Experiment
) -> dict[str, Tensor]:
    """Sum up a method's own terms and what candidates say about themselves, with the weights of the experiment.

    Parameters
    ----------
    terms : dict of str to Tensor
        The method's own terms; all are added.
    described : mapping of str to Tensor
        From :func:`smlm_pb.training.objective.self_description`.
    experiment : Experiment
        The run.

    Returns
    -------
    dict of str to Tensor
        With ``total``.
    """
    loss = experiment.loss
    total = (
        sum(terms.values())
        + loss.position_weight * described["position"]
        + loss.photon_weight * described["photons"]
        + loss.background_weight * described["background"]
    )
    assert isinstance(total, Tensor)
    return {"total": total, **terms, **described}
