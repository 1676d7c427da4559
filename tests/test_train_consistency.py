"""Frames without labels: two views of a crop must count alike."""

import json
import math

import numpy as np
import pytest
import torch

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.training import Experiment, train
from smlm_pb.training.crop_source import SourceBatches, open_source
from smlm_pb.training.movie_crops import turned
from smlm_pb.training.unlabelled_movie import (
    UnlabelledMovie,
    _turned_back,
    consistency_loss,
    equal_count_loss,
    taught_count_loss,
    thinned,
)

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "read_noise_e": 1.6}


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("unlabelled") / "movie.npy"
    np.save(path, simulate(density_sweep(1.0, frames=6, size_px=32), seed=3)[0])
    return path


def experiment(movie, **changes):
    consistency = {"movie": str(movie), "camera": CAMERA, "psf_sigma_px": 1.1, "crops": 2}
    return Experiment.from_dict(
        {
            "name": "alike",
            "steps": 4,
            "batch_size": 2,
            "crop_px": 16,
            "workers": 0,
            "network": {"channels": 4, "blocks": 1},
            "consistency": {**consistency, **changes.pop("consistency", {})},
            "validation": {"every_steps": 2, "scenes": 3, "calibration_scenes": 0},
            **changes,
        }
    )


def logits(*probabilities):
    return torch.logit(torch.tensor([probabilities], dtype=torch.float64))


def test_the_chance_of_equal_counts_is_that_of_the_source():
    """Schroeter (2021), Eq. 7.4, worked out by hand for two small sets of candidates."""
    first, second = (0.045, 0.455, 0.455, 0.045), (0.14, 0.62, 0.24)
    by_hand = -math.log(sum(a * b for a, b in zip(first, second, strict=False)))
    assert by_hand == pytest.approx(0.922309, abs=1e-6)
    assert float(equal_count_loss(logits(0.9, 0.1, 0.5), logits(0.8, 0.3))) == pytest.approx(by_hand, rel=1e-6)


def test_equal_counts_cost_nothing_once_they_are_certain():
    certain = torch.tensor([[12.0, -12.0, 12.0]])
    assert float(equal_count_loss(certain, torch.tensor([[-12.0, 12.0, 12.0]]))) < 1e-4
    assert float(equal_count_loss(certain, torch.tensor([[-12.0, 12.0, -12.0]]))) > 5
    padded = torch.tensor([[12.0, -12.0, 12.0, -math.inf]])
    assert float(equal_count_loss(padded, certain)) < 1e-4


def test_the_loss_pulls_both_counts_together():
    first = torch.tensor([[2.0, -1.0, -3.0]], requires_grad=True)
    second = torch.tensor([[-2.0, -3.0, -3.0]], requires_grad=True)
    equal_count_loss(first, second).sum().backward()
    assert first.grad[0, 0] > 0
    assert second.grad[0, 0] < 0


def test_a_teacher_is_followed_however_uncertain_it_is():
    teacher = torch.tensor([[0.3, -1.0, -3.0], [12.0, -40.0, -math.inf]], requires_grad=True)
    assert taught_count_loss(teacher, teacher.detach()).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    pupil = (teacher.detach() - 1.0).requires_grad_()
    loss = taught_count_loss(teacher, pupil)
    assert (loss > 0).all()
    loss.sum().backward()
    assert teacher.grad is None
    assert (pupil.grad[0] < 0).all()
    assert torch.isfinite(pupil.grad).all()


def test_the_taught_loss_is_the_divergence_of_the_counts():
    teacher, pupil = (0.045, 0.455, 0.455, 0.045), (0.084, 0.428, 0.392, 0.096)
    by_hand = sum(a * math.log(a / b) for a, b in zip(teacher, pupil, strict=True))
    found = taught_count_loss(logits(0.9, 0.1, 0.5), logits(0.8, 0.3, 0.4))
    assert float(found) == pytest.approx(by_hand, rel=1e-6)


def test_a_dimmed_frame_has_the_noise_of_dimmer_light():
    rng = np.random.default_rng(0)
    bright = rng.poisson(200.0, (300, 300)).astype(np.float32)
    dim = thinned(rng, bright, 0.6)
    assert dim.mean() == pytest.approx(120, rel=0.01)
    assert dim.var() == pytest.approx(120, rel=0.03)


@pytest.mark.parametrize("turn", range(8))
def test_turns_are_undone(turn):
    image = np.random.default_rng(1).random((9, 9), dtype=np.float32)
    back = _turned_back(torch.from_numpy(turned(image, turn))[None, None], turn)
    assert torch.equal(back[0, 0], torch.from_numpy(image))


def test_views_are_of_the_same_crops_and_repeat(movie):
    source = UnlabelledMovie(experiment(movie, consistency={"keep_light": 1.0}))
    views = source.draw(np.random.default_rng(2))
    assert views.first.shape == (2, 1, 16, 16)
    torch.testing.assert_close(_turned_back(views.second, views.turn), views.first)
    again = source.draw(np.random.default_rng(2))
    assert torch.equal(views.second, again.second)
    dimmer = UnlabelledMovie(experiment(movie, consistency={"keep_light": 0.3})).draw(np.random.default_rng(2))
    assert dimmer.second.mean() < 0.95 * dimmer.first.mean()


def test_the_weight_rises(movie):
    settings = experiment(movie, consistency={"weight": 0.4, "ramp": 0.5})
    network = torch.nn.Identity()

    class Field:
        logit = torch.linspace(-4, -2, 4 * 2 * 16 * 16).reshape(4, 2, 16, 16)

    network.forward = lambda electrons, psf: Field
    views = UnlabelledMovie(settings).draw(np.random.default_rng(0))
    shares = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        terms = consistency_loss(network, views, settings.consistency, progress=progress)
        shares.append(float(terms["weighted"] / terms["consistency"]))
    assert shares == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_it_is_learned_beside_simulated_scenes(movie, tmp_path):
    result = train(experiment(movie), tmp_path / "run", device="cpu")
    assert result.steps == 4
    history = json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8"))
    assert all(entry["loss"]["consistency"] > 0 for entry in history)
    settings = experiment(movie)
    batches = SourceBatches(open_source(settings), settings, first=0, last=4)
    assert batches[1].views is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_px": 40}, "lower crop_px"),
        ({"consistency": {"tile_px": 20}}, "consistency.tile_px"),
        ({"consistency": {"weigth": 1}}, "weight"),
        ({"method": "cross-entropy"}, "does not learn from consistency"),
    ],
)
def test_what_cannot_be_is_said(movie, changes, words):
    def start():
        settings = experiment(movie, **changes)
        SourceBatches(open_source(settings), settings, first=0, last=1)

    with pytest.raises(ConfigurationError, match=words):
        start()
