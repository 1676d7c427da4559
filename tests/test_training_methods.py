"""Methods of training: each teaches what it says, learns a small problem, and leaves a model like any other."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

import smlm_pb
from smlm_pb.camera import Camera
from smlm_pb.cli import main as cli
from smlm_pb.cli import train as cli_train
from smlm_pb.errors import ConfigurationError
from smlm_pb.localization import load_model
from smlm_pb.networks import PointField, build_network
from smlm_pb.simulation.scenes import SceneSettings, draw_scene
from smlm_pb.training import Experiment, train
from smlm_pb.training import progress as training_progress
from smlm_pb.training.batches import Batch, collate
from smlm_pb.training.methods import DEFAULT_METHOD, METHODS, find_method
from smlm_pb.training.methods.counting import gaussian_likelihood
from smlm_pb.training.methods.cross_entropy import in_pixel_likelihood, pixel_cross_entropy
from smlm_pb.training.methods.decode import mixture_likelihood
from smlm_pb.training.methods.deep_watershed import energy_levels
from smlm_pb.training.methods.drawing import draw_gaussians, missed_cost, mutual_nearest, peak_cross_entropy
from smlm_pb.training.methods.soft_jaccard import soft_jaccard

SIZE = 11
PLACES = ((2.2, 3.1), (8.7, 2.9), (7.1, 9.4))
OFFSETS = [name for name, method in METHODS.items() if method.read_out == "offsets"]
DRAWINGS = [name for name, method in METHODS.items() if method.read_out != "offsets"]
TINY = {
    "name": "tiny",
    "steps": 3,
    "batch_size": 2,
    "crop_px": 16,
    "workers": 0,
    "network": {"channels": 8, "blocks": 1},
    "scenes": {"psf_sigma_px": [1.0, 1.2]},
    "validation": {"every_steps": 3, "scenes": 2, "calibration_scenes": 0},
}


def tiny(method, **changes):
    return Experiment.from_dict({**TINY, "method": method, **changes})


def a_batch(places=PLACES, size=SIZE, scenes=1):
    position = torch.tensor(list(places) * scenes, dtype=torch.float32).reshape(-1, 2)
    return Batch(
        electrons=torch.full((scenes, 1, size, size), 10.0),
        background=torch.full((scenes, size, size), 10.0),
        psf_sigma_px=torch.full((scenes,), 1.1),
        position=position,
        photons=torch.full((len(position),), 1000.0),
        item=torch.arange(scenes).repeat_interleave(len(places)),
    )


def a_field(seed=0, n=2, size=SIZE, scenes=1, logit=-3.0):
    """Free parameters in the place of a network, away from any symmetry."""
    torch.manual_seed(seed)
    shape = (scenes, n, size, size)
    raw = {
        "logit": logit + 0.3 * torch.randn(shape) - 2.0 * torch.arange(n)[:, None, None],
        "dy": 0.2 * torch.randn(shape),
        "dx": 0.2 * torch.randn(shape),
        "log_sigma_y": torch.full(shape, math.log(0.25)),
        "log_sigma_x": torch.full(shape, math.log(0.25)),
        "log_photons": torch.full(shape, math.log(1500.0)),
        "background": torch.full((scenes, size, size), 8.0),
    }
    return PointField(**{name: values.requires_grad_() for name, values in raw.items()})


def listed(field, threshold=0.5):
    """Positions (y, x) of the candidates above a threshold."""
    scene, slot, row, column = torch.nonzero(torch.sigmoid(field.logit) > threshold, as_tuple=True)
    place = (scene, slot, row, column)
    return torch.stack((row + field.dy[place], column + field.dx[place]), dim=1).detach().numpy()


# ---- what they learn


@pytest.mark.parametrize("name", [name for name in OFFSETS if name not in ("unnormalised", "soft-jaccard")])
def test_free_candidates_become_the_molecules(name):
    """No network: candidates move to the molecules and, with counting of any kind, become few."""
    method, batch, field = METHODS[name], a_batch(), a_field()
    experiment = tiny(name, loss={**METHODS[name].loss, "photon_weight": 0.0, "background_weight": 0.0})
    optimizer = torch.optim.Adam(list(field), lr=0.1)
    totals = []
    steps = 130
    for step in range(steps):
        limited = field._replace(
            dy=0.6 * torch.tanh(field.dy),
            dx=0.6 * torch.tanh(field.dx),
            log_sigma_y=field.log_sigma_y.clamp(-3.5, 0),
            log_sigma_x=field.log_sigma_x.clamp(-3.5, 0),
        )
        terms = method.objective(None, limited, batch, experiment, 0.3 if step < 70 else 0.95)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        totals.append(float(terms["total"].detach()))
    assert totals[-1] < totals[0]
    p = torch.sigmoid(limited.logit)
    rows = torch.arange(SIZE)[:, None] + limited.dy
    columns = torch.arange(SIZE) + limited.dx
    for y, x in PLACES:
        # Whatever the sharing, about one molecule is expected near each of them.
        near = p[torch.hypot(rows - y, columns - x) < 0.5].sum().item()
        assert near == pytest.approx(1.0, abs=0.25), (name, y, x)
    if name in ("heatmap-matching", "point-kernels", "gaussian-count", "decode", "cross-entropy"):
        positions = listed(limited)
        assert len(positions) == len(PLACES), name
        for place in PLACES:
            assert np.hypot(*(positions - place).T).min() < 0.15


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_free_drawing_becomes_the_molecules(name):
    method, batch, experiment = METHODS[name], a_batch(), tiny(name)
    network = build_network(experiment.network)
    factor = network.finder.upsampling
    drawing = torch.zeros(1, network.finder.levels, SIZE * factor, SIZE * factor, requires_grad=True)
    optimizer = torch.optim.Adam([drawing], lr=0.1)
    totals = []
    for _ in range(250):
        total = sum(method.compare(drawing, batch, experiment).values()).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.1 * totals[0]
    peaks = network.finder(drawing.detach(), 2)
    _, slot, row, column = torch.nonzero(peaks.score > 0.3, as_tuple=True)
    place = (0, slot, row, column)
    positions = torch.stack((row + peaks.dy[place], column + peaks.dx[place]), dim=1).numpy()
    assert len(positions) == len(PLACES)
    for place in PLACES:
        assert np.hypot(*(positions - place).T).min() < 0.1


@pytest.mark.parametrize("name", ["cross-entropy", "upsampling"])
def test_a_network_learns_isolated_molecules(name):
    """From images: after some steps the network finds bright lone molecules that it has not seen."""
    from smlm_pb.evaluation.matching import match
    from smlm_pb.training.loop import Trainer
    from smlm_pb.training.validation import detect, truth_of

    steps = 100
    experiment = tiny(name, steps=steps, learning_rate=8e-3, ema_decay=0.9, network={"channels": 12, "blocks": 1})
    settings = SceneSettings(
        psf_sigma_px=(1.1, 1.1), photons=(4000, 4000), background_e=(5, 5), empty_fraction=0, sparse_fraction=0,
        dense_density_per_px2=(0.008, 0.008), dense_structures={"uniform": 1}, partial_on_fraction=0,
        structured_background_fraction=0, photon_spreads={"constant": 1}, em_fraction=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    trainer = Trainer(experiment, Path("unused"), torch.device("cpu"))
    totals = [
        trainer.improve(collate([draw_scene(rng, settings, 20) for _ in range(4)]))["total"] for _ in range(steps)
    ]
    assert np.mean(totals[-20:]) < 0.5 * np.mean(totals[:20])
    scenes = [draw_scene(rng, settings, 24) for _ in range(12)]
    truth = truth_of(scenes)
    found = detect(trainer.averaged, scenes, truth.info, torch.device("cpu"))
    found = found.select(found["probability"] > 0.3)
    pairs = match(found, truth, 60.0)
    assert len(pairs.pred) / (len(found) + len(truth) - len(pairs.pred)) > 0.5


# ---- golden values


def test_cross_entropy_by_hand():
    batch = a_batch([(2.0, 2.0), (2.2, 1.8), (5.4, 5.6)], size=8)
    logit = torch.linspace(-3, 2, 128).reshape(1, 2, 8, 8)
    wanted = torch.zeros(1, 2, 8, 8)
    wanted[0, :, 2, 2] = 1.0  # two molecules: both candidates
    wanted[0, 0, 5, 6] = 1.0  # one molecule, in the pixel whose centre is nearest
    expected = -(wanted * logit.sigmoid().log() + (1 - wanted) * (1 - logit.sigmoid()).log()).sum()
    assert pixel_cross_entropy(logit, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_position_in_pixel_is_a_gaussian_mixture():
    batch, field = a_batch([(3.3, 4.2)]), a_field(n=2)
    p = torch.sigmoid(field.logit[0, :, 3, 4]).detach().numpy()
    density = 0.0
    for k in (0, 1):
        centre = [3 + field.dy[0, k, 3, 4].item(), 4 + field.dx[0, k, 3, 4].item()]
        density += p[k] / p.sum() * stats.multivariate_normal(centre, 0.25**2).pdf([3.3, 4.2])
    value = in_pixel_likelihood(field, batch, torch.ones(1)).item()
    assert value == pytest.approx(-math.log(density) - math.log(2 * math.pi), rel=1e-4)


def test_gaussian_count_is_a_normal_density():
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)) - 1
    p = torch.sigmoid(logits).double().numpy()
    counts = torch.tensor([3, 11, 20])
    variance = (p * (1 - p)).sum(1) + 0.05
    expected = -stats.norm(p.sum(1), np.sqrt(variance)).logpdf(counts.numpy())
    np.testing.assert_allclose(gaussian_likelihood(logits, counts).numpy(), expected, rtol=1e-4)


def test_mixture_equals_the_sum_over_all_candidates():
    places = [(2.3, 2.9), (7.8, 8.1), (0.1, 9.7)]
    batch, field = a_batch(places, size=10), a_field(n=2, size=10)
    grid = torch.arange(10.0)
    y = (grid[:, None] + field.dy[0]).detach().numpy()
    x = (grid + field.dx[0]).detach().numpy()
    p = torch.sigmoid(field.logit[0]).detach().numpy().astype(float)
    expected = 0.0
    for place in places:
        density = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * 0.25**2)) / (2 * np.pi * 0.25**2)
        expected -= math.log((p * density).sum() / p.sum())
    assert mixture_likelihood(field, batch).item() == pytest.approx(expected, rel=1e-4)


def test_counts_of_decode_ask_nothing_of_an_empty_scene():
    field, empty = a_field(logit=1.0), a_batch(())
    terms = METHODS["decode"].objective(None, field, empty, tiny("decode"), 0.5)
    terms["count"].backward()
    assert terms["count"] == 0
    assert field.logit.grad.abs().max() == 0
    ours = METHODS[DEFAULT_METHOD].objective(None, field, empty, tiny(DEFAULT_METHOD), 0.5)
    ours["count"].backward()
    assert field.logit.grad.abs().max() > 0.1


def test_other_counts_by_hand():
    logits, counts = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([1])
    total = 1 + 1 / (1 + math.exp(-2))
    assert METHODS["count-mse"].counting(logits, counts).item() == pytest.approx((total - 1) ** 2)
    assert METHODS["l1"].counting(logits, counts).item() == pytest.approx(total)
    assert METHODS["no-count"].counting(logits, counts).item() == 0.0
    # Two boxes, one molecule: the squared error is flat along p1 + p2 = 1, exact counting is not.
    p = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.01, 0.99]])
    one = torch.ones(3, dtype=torch.long)
    assert METHODS["count-mse"].counting(torch.logit(p), one).abs().max() < 1e-10
    exact = METHODS[DEFAULT_METHOD].counting(torch.logit(p), one)
    assert exact[1] > exact[0] > exact[2]


def test_not_normalised_is_the_same_times_the_area_of_the_kernel():
    batch, field = a_batch(), a_field()
    wide = {"bandwidth_px": {"start": 0.4, "end": 0.4}}
    terms = [METHODS[name].objective(None, field, batch, tiny(name, loss=wide), 0.5) for name in
             (DEFAULT_METHOD, "unnormalised")]  # fmt: skip
    assert terms[1]["matching"].item() == pytest.approx(terms[0]["matching"].item() * math.pi * 0.4**2 / 2, rel=1e-5)
    assert terms[1]["count"].item() == terms[0]["count"].item()


def test_published_form_punishes_uncertain_candidates_for_nothing():
    """A lone molecule, a candidate on it: between points the stated precision does not matter, with ours it does."""
    batch = a_batch([(5.0, 5.0)])
    values = {}
    for name in (DEFAULT_METHOD, "point-kernels"):
        for sigma in (0.01, 0.5):
            field = a_field(n=1)
            with torch.no_grad():
                field.logit.fill_(-20.0)
                field.logit[0, 0, 5, 5] = 20.0
                field.dy.zero_()
                field.dx.zero_()
                field.log_sigma_x.fill_(math.log(sigma))
                field.log_sigma_y.fill_(math.log(sigma))
            values[name, sigma] = METHODS[name].objective(None, field, batch, tiny(name), 1.0)["matching"].item()
    assert values["point-kernels", 0.01] == values["point-kernels", 0.5] == pytest.approx(0.0, abs=1e-4)
    assert values[DEFAULT_METHOD, 0.5] > 0.1 > values[DEFAULT_METHOD, 0.01]


def test_soft_jaccard_is_a_jaccard_index():
    batch = a_batch()

    def field_with(found, extra, shift=0.0):
        field = a_field(n=1)
        with torch.no_grad():
            field.logit.fill_(-20.0)
            for y, x in PLACES[:found]:
                row, column = round(y), round(x)
                field.logit[0, 0, row, column] = 20.0
                field.dy[0, 0, row, column] = y - row + shift
                field.dx[0, 0, row, column] = x - column
            field.logit[0, 0, 10, :extra] = 20.0
        return field

    for found, extra in ((3, 0), (2, 0), (3, 3), (0, 4)):
        value = soft_jaccard(field_with(found, extra), batch).item()
        assert value == pytest.approx(found / (3 + extra), abs=0.06), (found, extra)
    far, near = (soft_jaccard(field_with(3, 0, shift), batch).item() for shift in (0.7, 0.3))
    assert far < 0.45 < near < 0.8
    field = field_with(3, 1)
    with torch.no_grad():
        field.logit.clamp_(-4, 1.0)
    soft_jaccard(field, batch).backward()
    assert field.logit.grad[0, 0, 2, 3] > 0  # a true one should be more probable
    assert field.logit.grad[0, 0, 10, 0] < 0  # a false one less
    assert soft_jaccard(a_field(logit=-30.0), a_batch(())).item() == pytest.approx(1.0, abs=1e-3)


def test_soft_jaccard_comes_last_or_in_a_fine_tune():
    batch, field, method = a_batch(), a_field(), METHODS["soft-jaccard"]
    early, late = (method.objective(None, field, batch, tiny("soft-jaccard"), p) for p in (0.5, 0.95))
    assert early["jaccard"] == 0 < late["jaccard"]
    assert late["total"].item() > early["matching"].item()
    tune = tiny("soft-jaccard").model_copy(update={"start_from": "default"})
    assert method.objective(None, field, batch, tune, 0.0)["jaccard"] > 0


def test_targets_of_drawings():
    batch = a_batch([(3.0, 4.0), (3.0, 5.0)], size=9)
    for factor in (1, 4):
        like = torch.zeros(1, 1, 9 * factor, 9 * factor)
        centre = (np.arange(9 * factor) + 0.5) / factor - 0.5
        each = [np.exp(-((centre[:, None] - y) ** 2 + (centre - x) ** 2) / (2 * 0.5**2)) for y, x in ((3, 4), (3, 5))]
        for together, expected in (("sum", sum(each)), ("amax", np.maximum(*each))):
            drawn = draw_gaussians(batch, like, factor, 0.5, together=together)[0, 0].numpy()
            np.testing.assert_allclose(drawn, expected, atol=1e-3)
    lone = draw_gaussians(a_batch([(4.1, 4.3)], size=9), torch.zeros(1, 1, 36, 36), 4, 0.25, together="sum")
    assert lone.square().sum().item() == pytest.approx(missed_cost(4, 0.25), rel=1e-3)


def test_levels_of_the_landscape():
    batch = a_batch([(4.0, 4.0)], size=9)
    level = energy_levels(batch, torch.zeros(1, 11, 9, 9), 1, 3.0)[0]
    # A tip of half a pixel, then one level for every 0.3 px.
    for distance, expected in ((0, 10), (1, 8), (2, 5), (3, 1), (4, 0)):
        assert level[4, 4 + distance] == expected


@pytest.mark.parametrize("name", ["label-smoothing", "upsampling", "heatmap-refinement"])
def test_a_perfect_drawing_costs_nothing(name):
    batch, experiment = a_batch(), tiny(name)
    settings = experiment.network
    like = torch.zeros(1, 1, SIZE * settings.upsampling, SIZE * settings.upsampling)
    together = "amax" if name == "label-smoothing" else "sum"
    drawn = draw_gaussians(batch, like, settings.upsampling, settings.drawn_width_px, together=together)
    perfect = torch.logit(drawn, eps=1e-7) if name == "label-smoothing" else drawn
    assert METHODS[name].compare(perfect, batch, experiment)["drawing"].item() == pytest.approx(0.0, abs=1e-3)
    empty = METHODS[name].compare(torch.full_like(like, -9.0 if together == "amax" else 0.0), batch, experiment)
    assert empty["drawing"].item() > 0.9 * len(PLACES)


def test_who_is_whose_peak():
    peaks = np.array([[1.0, 1.0], [1.3, 1.0], [5.0, 5.0], [9.0, 9.0]], np.float32)
    molecules = np.array([[1.1, 1.0], [5.2, 5.0], [9.0, 9.0]], np.float32)
    real = mutual_nearest(peaks, np.array([0, 0, 0, 0]), molecules, np.array([0, 0, 1]))
    assert real.tolist() == [1, 0, 1, 0]  # the second is a duplicate, the last lies in another scene
    none = mutual_nearest(peaks, np.zeros(4, int), molecules[:0], np.zeros(0, int))
    assert none.tolist() == [0, 0, 0, 0]


def test_heights_are_calibrated_and_nothing_else():
    experiment = tiny("upsampling")
    network = build_network(experiment.network)
    batch = a_batch()
    drawing = draw_gaussians(batch, torch.zeros(1, 1, 4 * SIZE, 4 * SIZE), 4, 0.25, together="sum").requires_grad_()
    maps = network.maps(batch.electrons, batch.psf_sigma_px)._replace(drawing=drawing)
    cost = peak_cross_entropy(network.points(maps), batch)
    cost.backward()
    assert drawing.grad is None
    assert network.head.weight.grad is None
    assert network.bias.grad < 0  # all three peaks are real


# ---- in an experiment, on the command line, as a model


def test_all_methods_have_names_and_sources():
    assert next(iter(METHODS)) == DEFAULT_METHOD
    assert len(METHODS) == 16
    for name, method in METHODS.items():
        assert method.name == name
        assert method.title
        assert method.source
    for name in set(METHODS) - {DEFAULT_METHOD}:
        assert name in cli_train._DESCRIPTION


def test_unknown_methods_are_named():
    with pytest.raises(ConfigurationError, match=r"Unknown method 'deepstorm': did you mean 'deep-storm'\?"):
        find_method("deepstorm")
    with pytest.raises(ConfigurationError, match="known methods are heatmap-matching, ") as caught:
        tiny("magic")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="method"):
        tiny(["a", "list"])


def test_a_method_brings_its_defaults_and_the_file_prevails():
    assert tiny("deep-storm").network.upsampling == 4
    assert tiny("deep-storm").network.channels == 8
    assert tiny("deep-storm", network={"upsampling": 2}).network.upsampling == 2
    assert tiny("paper").loss.bandwidth_px.end == 0.2
    assert tiny("paper", loss={"bandwidth_px": {"start": 0.5, "end": 0.5}}).loss.bandwidth_px.end == 0.5
    assert tiny(DEFAULT_METHOD) == Experiment.from_dict(TINY)
    for name in METHODS:
        again = Experiment.from_dict(tiny(name).model_dump(mode="json"))
        assert again == tiny(name)


def test_a_network_that_does_not_fit_the_method():
    with pytest.raises(ConfigurationError, match=r"read_out = 'offsets' does not go with method 'upsampling'"):
        tiny("upsampling", network={"read_out": "offsets"})
    with pytest.raises(ConfigurationError, match=r"read_out = 'peaks' does not go with method 'heatmap-matching'"):
        tiny(DEFAULT_METHOD, network={"read_out": "peaks"})


def test_a_drawing_cannot_be_counted():
    movie = {"movie": "movie.tif", "psf_sigma_px": 1.1, "counts": "counts.csv"}
    with pytest.raises(ConfigurationError, match=r"'deep-storm' draws molecules and cannot learn from counts"):
        tiny("deep-storm", data=movie)
    assert tiny("cross-entropy", data=movie).method == "cross-entropy"


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_leaves_a_model_that_localizes(name, tmp_path, monkeypatch):
    monkeypatch.setattr(training_progress, "_draw", lambda path, history: path.write_bytes(b"figure"))
    result = train(tiny(name), tmp_path, device="cpu")
    model = load_model(result.model_folder, "cpu")
    assert model.card.training["method"] == name
    movie = np.random.default_rng(0).poisson(40, (2, 20, 20)).astype(np.uint16)
    camera = Camera(offset_adu=0.0, e_per_adu=1.0)
    options = {"camera": camera, "pixel_size_nm": 100.0, "psf_sigma_px": 1.1, "precision": "float32"}
    molecules = smlm_pb.localize(movie, model=model, threshold=0.5, **options)
    assert molecules.info.n_frames == 2
    assert set(molecules.column_names) >= {"x", "y", "photons", "background", "sigma_x", "probability"}


def test_a_drawing_network_is_continued_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(training_progress, "_draw", lambda path, history: path.write_bytes(b"figure"))
    whole = train(tiny("deep-watershed"), tmp_path / "a", device="cpu")
    train(tiny("deep-watershed"), tmp_path / "b", device="cpu", max_seconds=0.0)
    resumed = train(tiny("deep-watershed"), tmp_path / "b", device="cpu", resume=True)
    states = [load_model(r.model_folder, "cpu").network.state_dict() for r in (whole, resumed)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_method_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_progress, "_draw", lambda path, history: path.write_bytes(b"figure"))
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    assert cli.main(["train", "tiny.yaml", "--out", "run", "--method", "label-smoothing"]) == 0
    assert load_model("run", "cpu").card.training["method"] == "label-smoothing"
    assert yaml.safe_load(Path("run/tiny/experiment.yaml").read_text())["method"] == "label-smoothing"
    capsys.readouterr()
    assert cli.main(["train", "tiny.yaml", "--out", "other", "--method", "label-smoothin"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'label-smoothing'" in error
    assert error.count("\n") == 1
    assert cli.main(["train", "--like", "movie.tif", "--out", "other", "--method", "paper"]) == 2
    assert "--method goes with an experiment file" in capsys.readouterr().err


def test_a_stopped_run_is_continued_with_its_method(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_progress, "_draw", lambda path, history: path.write_bytes(b"figure"))
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    run = ["train", "tiny.yaml", "--out", "run", "--method", "cross-entropy"]
    assert cli.main([*run, "--max-minutes", "1e-9"]) == 0
    assert "--out run --method cross-entropy --resume' continues" in capsys.readouterr().err
    assert cli.main(["train", "tiny.yaml", "--out", "run", "--resume"]) == 2
    assert "'method' is 'cross-entropy' there" in capsys.readouterr().err
    assert cli.main([*run, "--resume"]) == 0


def test_the_figure_draws_the_terms_of_any_method(tmp_path):
    names = training_progress._drawn_terms([{"loss": {"total": 1.0, "count": 2.0, "mixture": -3.0, "photons": 1.0}}])
    assert names == ["count", "mixture"]
    scores = dict.fromkeys(("jaccard", "precision", "recall", "rmse_px", "pull"), 0.5)
    loss = {"total": -1.0, "count": 2.0, "mixture": -3.0}
    training_progress.write_history(tmp_path, [{"step": k, "loss": loss, "validation": scores} for k in (1, 2)])
    assert (tmp_path / "progress.png").stat().st_size > 5000
