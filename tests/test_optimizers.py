"""Optimizers: which weights follow which rule, and that the rule is the published one."""

import copy
import math

import numpy as np
import pytest
import torch

from smlm_pb.errors import ConfigurationError
from smlm_pb.networks import build_network
from smlm_pb.training import Experiment
from smlm_pb.training.loop import Trainer, learning_rate
from smlm_pb.training.methods import METHODS
from smlm_pb.training.optimizers import (
    MUON_RATE,
    Muon,
    hidden_convolutions,
    make_optimizer,
    orthogonalised,
    set_learning_rate,
)


def an_experiment(**changes):
    return Experiment.from_dict({"name": "a", "network": {"channels": 8, "blocks": 2}, **changes})


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- which weights


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("network", [{"backbone": "paper"}, {"channels": 8, "blocks": 2}])
def test_convolutions_between_stem_and_head_are_orthogonalised(method, network):
    experiment = an_experiment(method=method, network=network, optimizer="muon")
    built = build_network(experiment.network)
    weights = {id(weight) for weight in hidden_convolutions(built)}
    names = [name for name, weight in built.named_parameters() if id(weight) in weights]
    if experiment.network.backbone == "paper":
        assert names == ["backbone.layers.1.weight", "backbone.layers.2.weight"]
    else:
        assert names == [f"backbone.blocks.{k}.{part}.weight" for k in range(2) for part in ("first", "second")]
    groups = make_optimizer(built, experiment).param_groups
    everything = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(everything) == sorted(id(weight) for weight in built.parameters())
    assert [id(p) in weights for group in groups for p in group["params"]] == [
        group.get("orthogonal", False) for group in groups for _ in group["params"]
    ]


def test_adamw_is_torchs():
    experiment = an_experiment(weight_decay=0.01)
    assert experiment.optimizer == "adamw"  # also in files from before there was a choice
    network = build_network(experiment.network)
    optimizer = make_optimizer(network, experiment)
    assert type(optimizer) is torch.optim.AdamW
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert {p.ndim for p in optimizer.param_groups[1]["params"]} == {1}


def test_another_optimizer_is_named():
    with pytest.raises(ConfigurationError, match=r"optimizer = sgd must be 'adamw' or 'muon'") as caught:
        an_experiment(optimizer="sgd")
    assert "\n" not in str(caught.value)


# ---- the rule


@pytest.mark.parametrize("shape", [(3, 32, 288), (1, 24, 40), (2, 40, 12)])
def test_updates_are_orthogonal(shape):
    matrices = random(*shape) * torch.tensor([1e-6, 1.0, 1e4])[: shape[0], None, None].double()
    found = orthogonalised(matrices)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.67
    assert values.max() < 1.21
    # Singular vectors stay: what the exact factor undoes is symmetric and positive.
    for before, after in zip(matrices, found, strict=True):
        u, _, vh = torch.linalg.svd(before, full_matrices=False)
        assert torch.allclose(u.T @ after @ vh.T, torch.diag(torch.diagonal(u.T @ after @ vh.T)), atol=1e-9)
    assert torch.equal(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


def reference_step(weight, gradient, momentum, *, lr, decay):
    """One step by the singular values, on which the polynomial acts one by one (float64)."""
    momentum = 0.95 * momentum + 0.05 * gradient
    matrix = (0.05 * gradient + 0.95 * momentum).reshape(len(weight), -1)
    u, values, vh = np.linalg.svd(matrix, full_matrices=False)
    values = values / math.sqrt((values**2).sum())
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    update = 0.2 * math.sqrt(max(matrix.shape)) * (u * values) @ vh
    return weight * (1 - lr * decay) - lr * update.reshape(weight.shape), momentum


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_steps_are_those_of_the_papers(memory_format):
    shapes = [(6, 4, 3, 3), (5, 6, 5, 5), (6, 4, 3, 3)]
    weights = [random(*s, seed=k).to(memory_format=memory_format).requires_grad_() for k, s in enumerate(shapes)]
    expected = [weight.detach().numpy().copy() for weight in weights]
    momenta = [np.zeros(shape) for shape in shapes]
    plain = random(7, 3, seed=9).requires_grad_()
    alone = plain.detach().clone().requires_grad_()
    optimizer = Muon(
        [{"params": [plain], "weight_decay": 0.1}, {"params": weights, "weight_decay": 0.3, "orthogonal": True}],
        lr=0.05,
    )
    adamw = torch.optim.AdamW([alone], lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(3):
        for k, weight in enumerate(weights):
            weight.grad = random(*weight.shape, seed=10 * step + k).to(memory_format=memory_format)
            expected[k], momenta[k] = reference_step(expected[k], weight.grad.numpy(), momenta[k], lr=0.05, decay=0.3)
        plain.grad = alone.grad = random(7, 3, seed=100 + step)
        optimizer.step()
        adamw.step()
    for weight, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), wanted, rtol=0, atol=1e-10)
    assert torch.equal(plain, alone)


def test_an_update_has_the_size_of_adamws():
    weight = torch.zeros(32, 32, 3, 3, requires_grad=True)
    weight.grad = 1e3 * random(32, 32, 3, 3, dtype=torch.float32)
    Muon([{"params": [weight], "weight_decay": 0.0, "orthogonal": True}], lr=1.0).step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_decay_is_decoupled_from_the_gradient():
    start = random(4, 4, 3, 3)
    ends = []
    for gradient in (0.0, 1e-5, 1e5):
        weight = start.clone().requires_grad_()
        weight.grad = gradient * random(4, 4, 3, 3, seed=1)
        Muon([{"params": [weight], "weight_decay": 0.5, "orthogonal": True}], lr=0.1).step()
        ends.append(weight.detach() - start * 0.95)
    assert torch.equal(ends[0], torch.zeros_like(start))
    assert torch.allclose(ends[1], ends[2], rtol=1e-9)  # nor does the size of the gradient matter
    assert ends[1].abs().min() > 0


def test_weights_without_a_gradient_stay():
    weights = [random(4, 4, 3, 3, seed=k).requires_grad_() for k in range(2)]
    before = weights[0].detach().clone()
    weights[1].grad = random(4, 4, 3, 3)
    Muon([{"params": weights, "weight_decay": 0.5, "orthogonal": True}], lr=0.1).step()
    assert torch.equal(weights[0], before)


# ---- rates and state


def test_every_group_follows_the_schedule(tmp_path):
    experiment = an_experiment(optimizer="muon", learning_rate=3e-3, warmup=0.2, steps=10)
    trainer = Trainer(experiment, tmp_path, torch.device("cpu"))
    for progress in (0.0, 0.1, 0.2, 0.6, 1.0):
        rate = learning_rate(experiment, progress)
        set_learning_rate(trainer.optimizer, rate)
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [rate, rate, MUON_RATE * rate]


def test_the_state_goes_on_elsewhere():
    """Another optimizer that takes over the state makes the same steps."""
    experiment = an_experiment(optimizer="muon")
    networks = [build_network(experiment.network)]
    networks.append(copy.deepcopy(networks[0]))
    first = make_optimizer(networks[0], experiment)

    def step(network, optimizer, seed):
        for k, weight in enumerate(network.parameters()):
            weight.grad = random(*weight.shape, seed=100 * seed + k, dtype=torch.float32)
        optimizer.step()

    step(networks[0], first, 0)
    networks[1].load_state_dict(networks[0].state_dict())
    second = make_optimizer(networks[1], experiment)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in (1, 2):
        for network, optimizer in zip(networks, (first, second), strict=True):
            step(network, optimizer, seed)
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(first.state) == len(list(networks[0].parameters()))
