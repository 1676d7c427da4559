"""Learning from numbers of molecules: windows stay windows, and what counts cannot tell is said."""

import math
import warnings

import numpy as np
import pytest
import torch

from smlm_pb.cli import main as cli
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.localization import load_model
from smlm_pb.losses import count_negative_log_likelihood
from smlm_pb.networks import NetworkSettings, PointField, build_network
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.training import Experiment, propose_from_counts
from smlm_pb.training.batches import Batch
from smlm_pb.training.count_table import read_counts
from smlm_pb.training.counted_movie import CountedMovie, count_objective, read_out_cells, window_logits
from smlm_pb.training.crop_source import open_source, prepare_network

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "read_noise_e": 1.6}


def number_in(truth, frame, y0, x0, y1, x1):
    y, x = (truth[name][truth["frame"] == frame] for name in ("y", "x"))
    return int(((y >= y0 - 0.5) & (y < y1 - 0.5) & (x >= x0 - 0.5) & (x < x1 - 0.5)).sum())


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A folder with a movie, counts of windows at random places, and counts of whole frames."""
    folder = tmp_path_factory.mktemp("counts")
    movie, truth = simulate(density_sweep(1.0, frames=12, size_px=40), seed=3)
    np.save(folder / "movie.npy", movie)
    rng = np.random.default_rng(0)
    rows = []
    for frame in range(12):
        for _ in range(5):
            height, width = rng.integers(6, 15, 2)
            y0, x0 = rng.integers(0, 40 - height), rng.integers(0, 40 - width)
            window = (y0, x0, y0 + height, x0 + width)
            rows.append((frame, *window, number_in(truth, frame, *window)))
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "windows.csv").write_text("frame,y0,x0,y1,x1,count\n" + text + "\n")
    whole = [(frame, number_in(truth, frame, 0, 0, 40, 40)) for frame in range(12)]
    (folder / "frames.csv").write_text("frame,count\n" + "\n".join(f"{a},{b}" for a, b in whole) + "\n")
    return folder


def experiment(folder, counts="windows.csv", **changes):
    data = {"movie": str(folder / "movie.npy"), "camera": CAMERA, "psf_sigma_px": 1.1, "counts": str(folder / counts)}
    return Experiment.from_dict(
        {
            "name": "counted",
            "steps": 2,
            "batch_size": 4,
            "crop_px": 24,
            "workers": 0,
            "network": {"channels": 4, "blocks": 1, "n_candidates": 1},
            "data": {**data, **changes.pop("data", {})},
            "validation": {"every_steps": 2, "scenes": 8, "calibration_scenes": 0},
            **changes,
        }
    )


# ---- tables


def test_counts_are_read_as_they_stand(counted):
    table = read_counts(counted / "windows.csv", height=40, width=40, n_frames=12)
    assert len(table) == 60
    assert not table.whole_frames
    assert not table.is_constant
    whole = read_counts(counted / "frames.csv", height=40, width=40, n_frames=12)
    assert whole.whole_frames
    assert whole.window.tolist() == [[0, 0, 40, 40]] * 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frame\n1\n", "lacks the column count"),
        ("frame,count,y0\n1,2,3\n", "x0, y1, x1"),
        ("frame,count\n", "no counts"),
        ("frame,count\n0,2\n7,1\n", "row 2 below the header has 7"),
        ("frame,count\n0,1.5\n", "whole number"),
        ("frame,count\n0,-1\n", "0 or more"),
        ("frame,count\n0,many\n", "text"),
        ("frame,y0,x0,y1,x1,count\n0,3,3,3,9,1\n", "y0, y1"),
        ("frame,y0,x0,y1,x1,count\n0,3,3,9,11,1\n", "x0, x1"),
    ],
)
def test_wrong_tables_are_told_by_row(tmp_path, text, words):
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(TableError, match=words) as error:
        read_counts(tmp_path / "counts.csv", height=10, width=10, n_frames=5)
    assert "\n" not in str(error.value)


# ---- windows


def test_every_window_keeps_its_molecules_however_the_crop_is_turned(counted):
    """Light inside a window of the crop is that of the same window of the frame."""
    source = CountedMovie(experiment(counted))
    table = read_counts(counted / "windows.csv", height=40, width=40, n_frames=12)
    frames = {**dict(zip(source.learn.frames.number, source.learn.frames.electrons, strict=True))}
    known = {}
    for frame, (y0, x0, y1, x1), count in zip(table.frame, table.window, table.count, strict=True):
        if frame in frames:
            known.setdefault(int(count), []).append(frames[frame][y0:y1, x0:x1].sum())
    batch = source.draw(np.random.default_rng(0))
    assert len(batch.window) >= 4
    assert batch.window[:, 0].unique().tolist() == [0, 1, 2, 3]
    for (item, y0, x0, y1, x1), count in zip(batch.window.tolist(), batch.n_molecules.tolist(), strict=True):
        light = float(batch.electrons[item, 0, y0:y1, x0:x1].sum())
        assert np.isclose(known[count], light, rtol=1e-4).any()


def test_only_cells_of_the_window_are_counted():
    logit = torch.randn(2, 1, 10, 12, requires_grad=True)
    rest = {name: torch.zeros(2, 1, 10, 12) for name in PointField._fields[1:-1]}
    field = PointField(logit=logit, **rest, background=torch.zeros(2, 10, 12))
    nothing = torch.zeros(0)
    batch = Batch(
        torch.zeros(2, 1, 10, 12), torch.zeros(2, 10, 12), torch.ones(2), torch.zeros(0, 2), nothing, nothing,
        window=torch.tensor([[1, 2, 3, 6, 9], [0, 0, 0, 10, 12]]), n_molecules=torch.tensor([3, 7]),
    )  # fmt: skip
    logits = window_logits(field, batch)
    assert torch.isfinite(logits).sum(1).tolist() == [4 * 6, 120]
    terms = count_objective(field, batch)
    terms["total"].backward()
    alone = count_negative_log_likelihood(logit[:1].flatten(1), torch.tensor([7]))
    window = count_negative_log_likelihood(logit[1:, :, 2:6, 3:9].flatten(1), torch.tensor([3]))
    assert terms["total"].item() == pytest.approx((alone + window).item() / 2, rel=1e-5)
    outside = torch.ones(10, 12, dtype=torch.bool)
    outside[2:6, 3:9] = False
    assert torch.all(logit.grad[1, 0][outside] == 0)
    assert torch.all(logit.grad[1, 0][~outside] != 0)


def test_an_untrained_network_states_pixels(counted):
    network = build_network(NetworkSettings(channels=4, blocks=1, n_candidates=2))
    read_out_cells(network)
    field = network(50 * torch.rand(1, 1, 12, 12), torch.tensor([1.1]))
    assert torch.all(field.dx == 0)
    assert torch.all(field.dy == 0)
    assert torch.allclose(field.log_sigma_x.exp(), torch.tensor(math.sqrt(1 / 12)), rtol=1e-3)
    assert field.logit.std() > 0
    other = build_network(NetworkSettings(channels=4, blocks=1))
    prepare_network(other, experiment(counted, start_from="default"))
    assert torch.any(other.head.weight[2:] != 0), "a network that knows positions keeps them"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_px": 16, "loss": {"tile_px": 8}, "counts": "frames.csv"}, "raise crop_px"),
        ({"method": "cross-entropy"}, "does not learn from counts"),
        ({"data": {"simulated_share": 0.5}}, "simulated_share goes with labels"),
    ],
)
def test_what_does_not_go_with_counts_is_said(counted, changes, words):
    with pytest.raises(ConfigurationError, match=words):
        open_source(experiment(counted, **changes))


# ---- from counts to a model


def propose(folder, name, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return propose_from_counts(
            folder / "movie.npy",
            folder / name,
            offset_adu=100,
            e_per_adu=0.5,
            psf_sigma_px=1.1,
            device="cpu",
            **options,
        )


def test_what_counts_cannot_teach_is_warned_of(counted):
    (counted / "constant.csv").write_text("frame,count\n" + "".join(f"{k},4\n" for k in range(12)))
    assert any("without looking" in warning for warning in propose(counted, "constant.csv").warnings)
    assert any("one count per frame" in warning for warning in propose(counted, "frames.csv").warnings)
    windows = propose(counted, "windows.csv")
    assert not windows.warnings
    assert windows.experiment.crop_px == 32
    assert windows.experiment.network.start_logit == pytest.approx(math.log(0.01), abs=0.4)


def test_a_trained_network_is_not_taught_like_a_new_one(counted):
    new, trained = (propose(counted, "windows.csv", start=start).experiment for start in (None, "fast"))
    assert (new.optimizer, trained.optimizer) == ("muon", "adamw")
    assert new.learning_rate == 10 * trained.learning_rate


def test_from_counts_to_a_model(counted, tmp_path, capsys):
    arguments = ["train", "--counts", counted / "windows.csv", "--movie", counted / "movie.npy", "--out", tmp_path]
    options = ["--offset-adu", 100, "--e-per-adu", 0.5, "--psf-sigma-px", 1.1, "--steps", 2, "--device", "cpu"]
    assert cli.main([str(part) for part in (*arguments, "--name", "counted", *options)]) == 0
    printed, told = capsys.readouterr()
    assert "60 windows of 12 frames" in printed
    assert "counts agree to" in told
    card = load_model(tmp_path / "counted", "cpu").card
    assert card.accuracy["validation"]["counts_only"]
    assert "tells the pixel" in card.description


def test_counts_place_molecules(counted):
    """A detector that is one pixel off counts worse than one that is right: that is what windows teach."""
    source = CountedMovie(experiment(counted, data={"flips": False}))
    _, truth = simulate(density_sweep(1.0, frames=12, size_px=40), seed=3)
    y, x = (np.floor(truth[name] + 0.5).astype(int) for name in ("y", "x"))
    costs = []
    for shift in (0, 1):
        logit = torch.full((12, 1, 40, 40), -6.0)
        inside = (x + shift < 40) & (x >= 0) & (y >= 0) & (y < 40)
        logit[truth["frame"][inside].astype(int), 0, y[inside], x[inside] + shift] = 6.0
        rest = {name: torch.zeros(12, 1, 40, 40) for name in PointField._fields[1:-1]}
        field = PointField(logit=logit, **rest, background=torch.zeros(12, 40, 40))
        table = read_counts(counted / "windows.csv", height=40, width=40, n_frames=12)
        nothing = torch.zeros(0)
        batch = Batch(
            torch.zeros(12, 1, 40, 40), torch.zeros(12, 40, 40), torch.ones(12), torch.zeros(0, 2), nothing, nothing,
            window=torch.from_numpy(np.column_stack((table.frame, table.window))),
            n_molecules=torch.from_numpy(table.count),
        )  # fmt: skip
        costs.append(float(count_objective(field, batch)["total"]))
    assert costs[0] < 0.7 * costs[1], costs
    assert source.size == (24, 24)
