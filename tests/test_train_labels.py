"""Learning from labels: what errs is known to err, and a common shift is told."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from smlm_pb.cli import main as cli
from smlm_pb.errors import ConfigurationError, OutputError, TableError
from smlm_pb.localization import load_model
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.losses import heatmap_matching_grid
from smlm_pb.losses.label_noise import label_variance_map
from smlm_pb.networks import PointField
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.simulation.rendering import render_separable
from smlm_pb.training import Experiment, from_labels, propose_from_labels
from smlm_pb.training.batches import Batch
from smlm_pb.training.crop_source import SourceBatches, open_source
from smlm_pb.training.experiment import LossSettings
from smlm_pb.training.label_light import light_of_labels
from smlm_pb.training.label_shift import label_shift
from smlm_pb.training.labelled_movie import LabelledMovie, label_sigma
from smlm_pb.training.movie_crops import Window
from smlm_pb.training.objective import objective

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "read_noise_e": 1.6}


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """A small movie as a file, its truth, and labels of it that are moved by (0.3, -0.2) px and jittered."""
    folder = tmp_path_factory.mktemp("labels")
    frames, truth = simulate(density_sweep(1.0, frames=14, size_px=40), seed=3)
    np.save(folder / "movie.npy", frames)
    rng = np.random.default_rng(0)
    x, y = (truth[a] + shift + rng.normal(0, 0.2, len(truth)) for a, shift in (("x", 0.3), ("y", -0.2)))
    labels = truth.with_columns(x=x, y=y).without_columns("sigma_x", "sigma_y")
    labels.save(folder / "table.csv", format="thunderstorm")
    truth.save(folder / "truth.csv", format="csv")
    clicks = labels.select(labels["frame"] % 2 == 0).without_columns("photons", "background")
    clicks.save(folder / "clicks.csv", format="napari")
    return folder


def experiment(folder, *tables, **changes):
    tables = tables or ({"table": str(folder / "truth.csv"), "own_sigma": False},)
    data = {"movie": str(folder / "movie.npy"), "camera": CAMERA, "psf_sigma_px": 1.1, "labels": list(tables)}
    return Experiment.from_dict(
        {
            "name": "soft",
            "steps": 3,
            "batch_size": 3,
            "crop_px": 16,
            "workers": 0,
            "network": {"channels": 4, "blocks": 1},
            "data": {**data, **changes.pop("data", {})},
            "validation": {"every_steps": 3, "scenes": 4, "calibration_scenes": 0},
            **changes,
        }
    )


# ---- the loss


def test_the_map_of_label_errors_is_that_of_the_labels_around():
    truth = torch.tensor([[2.0, 2.0], [12.0, 12.0], [5.0, 5.0]])
    item = torch.tensor([0, 0, 2])
    variance = torch.tensor([[0.04, 0.09], [1.0, 0.25], [0.3, 0.3]])
    found = label_variance_map(truth, item, variance, 3, (16, 16))
    assert found.shape == (3, 2, 16, 16)
    assert found[0, :, 2, 2].tolist() == pytest.approx([0.04, 0.09], rel=1e-4)
    assert found[0, :, 12, 12].tolist() == pytest.approx([1.0, 0.25], rel=1e-4)
    assert torch.all(found[1] == 0)
    torch.testing.assert_close(found[2], torch.full((2, 16, 16), 0.3))


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_a_lone_molecule_exists_for_certain_when_the_labels_error_is_told(sigma):
    """Without it the best probability is λ²/(λ² + σ²); with it the best is 1, at the candidate's own precision."""
    rng, n, bandwidth = np.random.default_rng(1), 1200, 0.5
    truth = torch.as_tensor(6.0 + rng.normal(0, sigma, (n, 2)))
    item, grid = torch.arange(n), (13, 13)
    offset = torch.zeros(n, 1, 2, *grid, dtype=torch.float64)
    probability = torch.zeros(n, 1, *grid, dtype=torch.float64)
    probability[:, :, 6, 6] = 1.0
    noise = label_variance_map(truth, item, torch.full((n, 2), sigma**2, dtype=torch.float64), n, grid)

    def best(variance):
        terms = heatmap_matching_grid(
            offset, probability, truth, item, bandwidth=bandwidth, radius=6, variance=variance
        )
        return float(terms.prediction_truth.mean() / terms.prediction_prediction.mean())

    assert best(None) == pytest.approx(bandwidth**2 / (bandwidth**2 + sigma**2), rel=0.05)
    assert best(noise[:, None]) == pytest.approx(1.0, rel=0.04)


def test_what_a_table_does_not_tell_is_not_asked_for(movie):
    batch = LabelledMovie(experiment(movie)).draw(np.random.default_rng(0))
    maps = {name: torch.zeros(3, 2, 16, 16, requires_grad=True) for name in PointField._fields[:-1]}
    field = PointField(**maps, background=torch.ones(3, 16, 16, requires_grad=True))
    unknown = batch._replace(
        photons=torch.full_like(batch.photons, torch.nan), background=torch.full_like(batch.background, torch.nan)
    )
    terms = objective(field, unknown, LossSettings(), progress=0.5, reach_px=0.6)
    terms["total"].backward()
    assert terms["photons"] == terms["background"] == 0
    assert torch.all(field.log_photons.grad == 0)
    assert torch.isfinite(field.logit.grad).all()
    assert objective(field, batch, LossSettings(), progress=0.5, reach_px=0.6)["photons"] > 0


def test_the_stated_precision_is_that_of_the_molecule_not_of_the_label():
    """The likelihood of a label's distance is best where stated and label's variance together fit it."""
    rng = np.random.default_rng(2)
    own, label, n = 0.1, 0.4, 800
    position = torch.as_tensor(5 + rng.normal(0, np.hypot(own, label), (n, 2)), dtype=torch.float32)

    def cost(sigma, told):
        maps = {name: torch.zeros(1, 1, 11, 11) for name in PointField._fields[:-1]}
        maps["logit"] -= 20
        maps["logit"][0, 0, 5, 5] = 10
        maps["log_sigma_y"] = maps["log_sigma_x"] = torch.full((1, 1, 11, 11), np.log(sigma))
        batch = Batch(
            torch.zeros(1, 1, 11, 11), torch.zeros(1, 11, 11), torch.ones(1), position, torch.ones(n),
            torch.zeros(n, dtype=torch.long), label_sigma=torch.full((n, 2), label) if told else None,
        )  # fmt: skip
        field = PointField(**maps, background=torch.zeros(1, 11, 11))
        settings = LossSettings(bandwidth_px={"start": 2.0, "end": 2.0})
        return float(objective(field, batch, settings, progress=1.0, reach_px=0.6)["position"])

    assert cost(0.1, told=True) < min(cost(0.03, told=True), cost(0.4, told=True))
    assert cost(0.4, told=False) < min(cost(0.1, told=False), cost(0.8, told=False))


# ---- light that a table does not tell


def test_light_is_fitted_where_the_table_tells_none():
    rng, shape = np.random.default_rng(4), (48, 48)
    x, y = rng.uniform(4, 43, (2, 40))
    photons = rng.uniform(800, 3000, 40)
    frame = rng.poisson(render_separable(x, y, photons, np.full(40, 1.1), shape) + 30.0).astype(np.float32)
    fitted, background = light_of_labels(frame, y, x, np.zeros(40), 1.1)
    assert np.nanmedian(np.abs(fitted / photons - 1)) < 0.1
    assert np.median(background) == pytest.approx(30, abs=2.5)
    jittered = [
        light_of_labels(frame, y + rng.normal(0, 0.4, 40), x + rng.normal(0, 0.4, 40), np.full(40, 0.4), 1.1)[0]
        for _ in range(12)
    ]
    assert np.nanmean(jittered) == pytest.approx(photons.mean(), rel=0.1)
    empty, level = light_of_labels(rng.poisson(12.0, shape).astype(np.float32), [], [], [], 1.1)
    assert len(empty) == 0
    assert level.mean() == pytest.approx(12, abs=0.5)


# ---- crops


@pytest.mark.parametrize("turn", range(8))
def test_positions_turn_with_their_crop(turn):
    image = np.zeros((30, 30), np.float32)
    image[11, 7] = 1.0
    window = Window(frame=0, row=5, column=3, size=(12, 10), turn=turn)
    crop = window.cut(image)
    y, x = window.move(np.array([11.0]), np.array([7.0]))
    assert crop[int(y[0]), int(x[0])] == 1.0


def test_crops_show_their_labels_and_never_the_frames_that_judge(movie):
    learned = experiment(movie, data={"held_out": 0.3})
    source = LabelledMovie(learned)
    assert source.learn[0].frames.number.max() < source.unseen[0].frames.number.min()
    assert len(source.unseen[0].frames) == 4
    batch = source.draw(np.random.default_rng(0))
    assert len(batch.item) > 3
    row, column = torch.floor(batch.position + 0.5).long().unbind(1)
    inner = ((row > 0) & (row < 15) & (column > 0) & (column < 15)).nonzero()[:, 0]
    at = batch.electrons[batch.item[inner], 0, row[inner], column[inner]]
    assert at.mean() > 2 * batch.electrons.median()
    assert batch.photons.median() == pytest.approx(2000, rel=0.1)
    assert batch.background.median() == pytest.approx(50, rel=0.25)
    batches = SourceBatches(open_source(learned), learned, first=0, last=3)
    again = SourceBatches(open_source(learned), learned, first=2, last=3)
    assert torch.equal(batches[2].electrons, again[0].electrons)
    assert torch.equal(batches[2].label_sigma, again[0].label_sigma)


def test_errors_of_table_and_source_add_in_quadrature_and_turn_with_the_crop(movie):
    truth = Localizations.load(movie / "truth.csv")
    truth.with_columns(sigma_x=0.3, sigma_y=0.1).save(movie / "sigmas.csv", format="csv", overwrite=True)
    one = {"table": str(movie / "sigmas.csv"), "sigma_px": 0.4}
    source = LabelledMovie(experiment(movie, one))
    labels = source.learn[0]
    x, y = label_sigma(Localizations.load(movie / "sigmas.csv"), source.data.labels[0])
    assert x[0] == pytest.approx(0.5)
    assert y[0] == pytest.approx(np.hypot(0.4, 0.1))
    for turn, first in ((0, y[0]), (1, x[0]), (4, x[0]), (5, y[0])):
        _, sigma = labels.crop(Window(0, 0, 0, (40, 40), turn))
        assert sigma[0, 0] == pytest.approx(first, rel=1e-5), turn
    mixed = experiment(movie, one, data={"simulated_share": 0.34}, scenes={"sparse_fraction": 0.0, "empty_fraction": 0})
    batch = LabelledMovie(mixed).draw(np.random.default_rng(1))
    assert torch.all(batch.label_sigma[batch.item == 2] == 0)
    assert torch.all(batch.label_sigma[batch.item < 2] > 0)


def test_clicked_frames_are_the_only_ones_looked_at(movie):
    one = {"table": str(movie / "clicks.csv"), "frames": "labelled", "sigma_px": 0.5}
    source = LabelledMovie(experiment(movie, one))
    assert set(source.learn[0].frames.number) | set(source.unseen[0].frames.number) == set(range(0, 14, 2))
    assert np.isfinite(source.learn[0].photons).mean() > 0.9, "photons are fitted where clicks tell none"


def test_frames_outside_of_a_table_are_not_taken_for_empty(movie):
    truth = Localizations.load(movie / "truth.csv")
    part = truth.select((truth["frame"] >= 3) & (truth["frame"] < 9) & (truth["frame"] != 5))
    part.save(movie / "part.csv", format="csv", overwrite=True)
    source = LabelledMovie(experiment(movie, {"table": str(movie / "part.csv")}))
    assert source.learn[0].frames.number.tolist() == [3, 4, 5, 6, 7], "frame 8 judges"
    assert len(source.learn[0].start) == 6
    assert source.learn[0].start[2] == source.learn[0].start[3], "frame 5 is empty"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"crop_px": 48, "loss": {"tile_px": 8}}, ConfigurationError, "lower it"),
        ({"data": {"frames": [40, 50]}}, ConfigurationError, "frame 40"),
        ({"data": {"frames": [3, 4]}}, ConfigurationError, "at least two"),
        ({"scenes": {"context_frames": 1}}, ConfigurationError, "context_frames"),
    ],
)
def test_what_cannot_be_learned_from_is_said(movie, changes, error, words):
    with pytest.raises(error, match=words):
        open_source(experiment(movie, **changes))


def test_a_table_of_another_movie_is_refused(movie, tmp_path):
    table = Localizations({"frame": [0], "x": [80.0], "y": [3.0]}, MovieInfo(1, 100, 100, 100.0))
    table.save(tmp_path / "other.csv", format="csv")
    with pytest.raises(TableError, match="outside the 40×40 px"):
        open_source(experiment(movie, {"table": str(tmp_path / "other.csv")}))


def test_labels_and_counts_exclude_each_other(movie):
    with pytest.raises(ConfigurationError, match="either labels"):
        experiment(movie, data={"counts": "counts.csv"})


# ---- the common shift


@pytest.mark.parametrize("density", [2, 40])
def test_the_shift_is_found_among_neighbours(density):
    rng, info = np.random.default_rng(5), MovieInfo(60, 64, 64, 100.0)
    n = 60 * density
    columns = {"frame": np.sort(rng.integers(0, 60, n)), "x": rng.uniform(0, 63, n), "y": rng.uniform(0, 63, n)}
    found = Localizations({**columns, "sigma_x": np.full(n, 0.05), "sigma_y": np.full(n, 0.05)}, info)
    moved = {"x": columns["x"] + 0.5 + rng.normal(0, 0.2, n), "y": columns["y"] + 0.5 + rng.normal(0, 0.2, n)}
    shift = label_shift(found.with_columns(**moved), found)
    assert shift.x_px == pytest.approx(0.5, abs=5 * shift.error_px)
    assert shift.y_px == pytest.approx(0.5, abs=5 * shift.error_px)
    assert shift.error_px < 0.05
    assert shift.scatter_px == pytest.approx(0.2, abs=0.06)
    assert shift.is_significant
    assert shift.looks_like_half_a_pixel
    assert not label_shift(found, found).is_significant
    assert label_shift(found.select(slice(0, 5)), found) is None


# ---- from a table to a training


def test_a_shift_is_warned_of_and_can_be_taken_off(movie):
    options = {"offset_adu": 100, "e_per_adu": 0.5, "psf_sigma_px": 1.1, "device": "cpu"}
    proposal = propose_from_labels(movie / "movie.npy", [movie / "table.csv"], **options)
    (source,) = proposal.experiment.data.labels
    assert any("inherited" in warning and "px in x" in warning for warning in proposal.warnings), proposal.warnings
    assert source.sigma_px == pytest.approx(0.2, abs=0.06), "measured against the model"
    assert source.shift_px == (0.0, 0.0)
    assert proposal.experiment.start_from is None
    assert proposal.experiment.optimizer == "muon"
    straight = propose_from_labels(movie / "movie.npy", [movie / "table.csv"], subtract_shift=True, **options)
    assert straight.experiment.data.labels[0].shift_px == pytest.approx((0.3, -0.2), abs=0.05)
    assert not any("inherited" in warning for warning in straight.warnings)


def test_softness_follows_the_labels():
    sharp = from_labels.soft_loss(0.05, crop_px=32, fine_tune=False)
    soft = from_labels.soft_loss(0.6, crop_px=32, fine_tune=False)
    assert sharp["bandwidth_px"]["end"] == 0.3
    assert soft["bandwidth_px"] == {"start": 1.2, "end": 0.6, "reached_at": 0.6}
    assert soft["tile_px"] > sharp["tile_px"]
    LossSettings(**soft)
    steady = from_labels.soft_loss(0.6, crop_px=32, fine_tune=True)
    assert steady["count_weight"]["start"] == steady["count_weight"]["end"]


def train(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cli.main(["train", *map(str, arguments)])


def test_from_labels_to_a_model(movie, tmp_path, capsys):
    options = ("--offset-adu", 100, "--e-per-adu", 0.5, "--psf-sigma-px", 1.1, "--steps", 2, "--device", "cpu")
    arguments = ("--labels", movie / "truth.csv", movie / "clicks.csv", "--movie", movie / "movie.npy", *options)
    out = tmp_path / "run"
    assert train(*arguments, "--label-sigma-px", 0.1, 0.5, "--out", out, "--name", "mine") == 0
    printed, told = capsys.readouterr()
    assert "clicks.csv" in printed
    assert f"written: {out / 'experiment.yaml'}" in printed
    assert "clicks.csv: the labels lie" in told
    stored = yaml.safe_load((out / "experiment.yaml").read_text(encoding="utf-8"))
    assert [one["frames"] for one in stored["data"]["labels"]] == ["all", "labelled"]
    card = load_model(out / "mine", "cpu").card
    assert card.psf_sigma_px == pytest.approx((1.03, 1.17), abs=0.01)
    assert train(*arguments, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels", "table.csv"], "--movie"),
        (["--labels", "table.csv", "--movie", "movie.npy", "--like", "movie.npy"], "one of"),
        (["--subtract-shift"], "--subtract-shift goes with --labels"),
        (["--movie", "movie.npy"], "--movie goes with"),
        (["--labels", "table.csv", "--movie", "movie.npy", "--resume"], "--resume"),
        (["--labels", "table.csv", "--movie", "movie.npy", "--label-sigma-px", "0.1", "0.2"], "2 values for 1 table"),
    ],
)
def test_contradicting_options_are_refused(movie, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(movie)
    assert train("--out", tmp_path / "run", *arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_proposal_is_not_written_over(movie, tmp_path):
    from smlm_pb.training import Proposal

    proposal = Proposal(experiment(movie), (), ())
    path = proposal.save(tmp_path)
    assert Experiment.from_yaml(path) == proposal.experiment
    with pytest.raises(OutputError, match="exists already"):
        proposal.save(tmp_path)
    proposal.save(Path(tmp_path), overwrite=True)
