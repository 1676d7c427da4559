"""Second stages as a user meets them: trained by one command, applied to a table and its movie, honest about limits."""

import json

import numpy as np
import pytest
import tifffile
import torch

import smlm_pb
import smlm_pb.evaluation
from smlm_pb.analysis.second_look import keep_likely, read_positions, refine_table, verify
from smlm_pb.camera import Camera
from smlm_pb.cli.main import main
from smlm_pb.errors import Cancelled, ConfigurationError, ModelError, MovieError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.networks.second_look import SecondLook, outputs_of, stated_logit
from smlm_pb.refinement.looks import CHANNELS, FACTS, WINDOW_PX
from smlm_pb.refinement.second_stage import STAGE_FILE, WEIGHTS_FILE, StageCard, load_stage, save_stage
from smlm_pb.simulation.presets import isolated
from smlm_pb.training.second_stage import read_experiment
from smlm_pb.training.second_stage_judge import calibration_error, roc_area

GRID = {"cells": 5, "step": 0.5, "basis": "triangular"}


def make_stage(folder, kind="readout", behind=None):
    outputs = GRID["cells"] ** 2 if kind == "readout" else 1
    network = SecondLook(planes=len(CHANNELS), window_px=WINDOW_PX, facts=len(FACTS), outputs=outputs, hidden=8)
    with torch.no_grad():
        if kind == "readout":  # all weight on the cell one step to the right
            network.head.bias[2 * 5 + 3] = 60.0
        else:  # amplitude decides
            network.head.bias[0] = 1.0
    grid = GRID if kind == "readout" else {}
    card = StageCard(kind=kind, name="by hand", network=network.settings, grid=grid, behind=behind or {})
    save_stage(folder, network, card, "kind: by hand\n")
    return folder


@pytest.fixture(scope="module")
def movie_and_truth():
    recipe = isolated(2000.0, 20.0, frames=6)
    movie, truth = smlm_pb.simulate(recipe, seed=5)
    rng = np.random.default_rng(0)
    n = len(truth)
    off = rng.normal(0, 0.1, (2, n))
    table = Localizations(
        {
            "frame": truth["frame"],
            "x": truth["x"] + off[0],
            "y": truth["y"] + off[1],
            "photons": truth["photons"],
            "background": np.full(n, 20.0),
            "sigma_x": np.full(n, 0.1),
            "sigma_y": np.full(n, 0.1),
            "probability": np.full(n, 0.6),
        },
        truth.info,
    )
    return movie, truth, table.select(rng.permutation(n)), recipe.camera.camera()


def test_a_map_moves_a_molecule_and_tells_how_sure_it_is(tmp_path, movie_and_truth):
    movie, _, table, camera = movie_and_truth
    stage = load_stage(make_stage(tmp_path / "stage"), "readout")
    refined = refine_table(table, movie, method="map", readout=stage, camera=camera, psf_sigma_px=1.1)
    unit = (refined["x"] - table["x"]) / 0.5
    assert unit == pytest.approx(np.full(len(table), 0.1), abs=1e-3)  # the stated precision is above the bound
    assert refined["y"] == pytest.approx(table["y"], abs=1e-5)
    assert refined["sigma_x"] == pytest.approx(np.full(len(table), 0.1 * np.sqrt(0.25 / 6)), rel=1e-3)
    assert refined["correlation_xy"] == pytest.approx(np.zeros(len(table)), abs=1e-8)
    assert refined.provenance[-1]["method"] == "map"
    assert (refined["frame"] == table["frame"]).all()


def test_likelihood_refines_any_table(movie_and_truth):
    movie, truth, table, camera = movie_and_truth
    refined = refine_table(table, movie, method="on", camera=camera, psf_sigma_px=1.1)
    pairs = smlm_pb.evaluation.match(refined, truth, 100.0)
    error = refined["x"][pairs.pred] - truth["x"][pairs.truth]
    assert error.std() < 0.06


def test_a_verifier_changes_probabilities_and_keeps_the_first(tmp_path, movie_and_truth):
    movie, _, table, camera = movie_and_truth
    stage = load_stage(make_stage(tmp_path / "stage", "verifier"), "verifier")
    judged = verify(table, movie, verifier=stage, camera=camera, psf_sigma_px=1.1)
    assert judged["first_probability"] == pytest.approx(table["probability"])
    assert judged["probability"] == pytest.approx(np.full(len(table), 1 / (1 + np.exp(-(np.log(1.5) + 1)))), abs=1e-4)
    kept = keep_likely(judged, 0.9)
    assert len(kept) == 0
    assert kept.provenance[-1]["threshold"]["threshold"] == 0.9
    assert len(keep_likely(judged)) == len(judged)


def test_nothing_is_looked_at_in_an_empty_table(tmp_path, movie_and_truth):
    movie, _, table, camera = movie_and_truth
    stage = load_stage(make_stage(tmp_path / "stage"), "readout")
    empty = refine_table(table.select([]), movie, method="map", readout=stage, camera=camera, psf_sigma_px=1.1)
    assert len(empty) == 0
    assert "correlation_xy" in empty


def test_a_bare_table_is_read_out_too(tmp_path, movie_and_truth):
    movie, _, table, camera = movie_and_truth
    stage = load_stage(make_stage(tmp_path / "stage"), "readout")
    bare = table.without_columns("photons", "background", "sigma_x", "sigma_y", "probability")
    refined = read_positions(bare, camera.to_electrons(movie), stage, psf_sigma_px=1.1)
    assert np.isfinite(refined["x"]).all()
    assert (refined["sigma_x"] > 0).all()


def test_a_table_of_another_model_is_warned_of(tmp_path, movie_and_truth):
    movie, _, table, camera = movie_and_truth
    stage = load_stage(make_stage(tmp_path / "stage", behind={"name": "default", "sha256": "abc"}), "readout")
    with pytest.warns(UserWarning, match="trained behind model 'default'.*by an unknown program"):
        refine_table(table, movie, method="map", readout=stage, camera=camera, psf_sigma_px=1.1)
    made = table.with_provenance({"step": "localize", "model": {"name": "default", "sha256": "abc"}})
    refine_table(made, movie, method="map", readout=stage, camera=camera, psf_sigma_px=1.1)


@pytest.mark.parametrize(
    ("change", "problem", "error"),
    [
        ({"method": "guess"}, "method = 'guess' is unknown", ConfigurationError),
        ({"camera": None}, "does not tell its camera", TableError),
        ({"psf_sigma_px": None}, "width of the point-spread function", TableError),
        ({"movie": np.zeros((6, 32, 32), np.uint16)}, "give the movie that the table was made from", MovieError),
        ({"movie": np.zeros((2, 64, 64), np.uint16)}, "has 2 frames", TableError),
        ({"readout": "nowhere"}, "does not exist", ModelError),
    ],
)
def test_what_cannot_be_is_refused(change, problem, error, movie_and_truth, tmp_path):
    movie, _, table, camera = movie_and_truth
    how = {"movie": movie, "method": "map", "readout": make_stage(tmp_path / "stage"), "camera": camera,
           "psf_sigma_px": 1.1, **change}  # fmt: skip
    with pytest.raises(error, match=problem):
        refine_table(table, how.pop("movie"), **how)


def test_a_verifier_needs_probabilities(movie_and_truth):
    movie, _, table, camera = movie_and_truth
    with pytest.raises(TableError, match="probability"):
        verify(table.without_columns("probability"), movie, camera=camera, psf_sigma_px=1.1)


def test_looking_can_be_stopped(tmp_path, movie_and_truth):
    movie, _, table, camera = movie_and_truth
    with pytest.raises(Cancelled):
        refine_table(table, movie, method="on", camera=camera, psf_sigma_px=1.1, should_stop=lambda: True)


# -- files -------------------------------------------------------------------------------------------------


def test_a_stage_comes_back_as_it_was(tmp_path):
    stage = load_stage(make_stage(tmp_path / "stage"), "readout")
    rng = np.random.default_rng(1)
    channels = rng.normal(size=(3, len(CHANNELS), WINDOW_PX, WINDOW_PX)).astype(np.float32)
    outputs = outputs_of(stage.network, channels, rng.normal(size=(3, len(FACTS))).astype(np.float32))
    assert outputs.argmax(1).tolist() == [13, 13, 13]
    assert sorted(p.name for p in (tmp_path / "stage").iterdir()) == ["experiment.yaml", STAGE_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("damage", ["kind", "weights", "json", "missing"])
def test_a_damaged_stage_is_one_clear_line(tmp_path, damage):
    folder = make_stage(tmp_path / "stage")
    kind = "readout"
    if damage == "kind":
        kind = "verifier"
    elif damage == "weights":
        (folder / WEIGHTS_FILE).write_bytes(b"0" * 100)
    elif damage == "json":
        (folder / STAGE_FILE).write_text("{")
    else:
        (folder / STAGE_FILE).unlink()
    with pytest.raises(ModelError) as caught:
        load_stage(folder, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["readout", "verifier", "duplicates"])
def test_shipped_stages_load_and_tell_how_they_were_made(kind):
    stage = load_stage(kind, kind)
    assert f"--second-stage {kind}" in stage.card.training["command"]
    assert stage.card.accuracy
    assert sum(p.numel() for p in stage.network.parameters()) < 200_000


# -- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("readout", "loss: guess\n", "loss = guess is unknown"),
        ("readout", "losses: energy\n", "did you mean loss"),
        ("verifier", "loss: energy\n", "unknown key loss"),
        ("verifier", "scenes: {photon: 3}\n", "photon"),
        ("duplicates", "steps: 0\n", "steps = 0"),
    ],
)
def test_wrong_settings_are_named(tmp_path, kind, content, problem):
    path = tmp_path / "stage.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=problem):
        read_experiment(kind, path)


def test_unknown_stages_are_refused():
    with pytest.raises(ConfigurationError, match="no second stage 'guess'"):
        read_experiment("guess")


@pytest.mark.filterwarnings("ignore:The (readout|verifier) was trained behind")
@pytest.mark.parametrize("kind", ["readout", "verifier"])
def test_training_and_using_from_the_command_line(tmp_path, monkeypatch, capsys, kind):
    from hand_made_model import make_model

    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model")
    (tmp_path / "small.yaml").write_text(
        "model: model\nn_scenes: 40\nsteps: 20\ncrop_px: 32\nhidden: 8\nleast_probability: 0.05\n"
        "scenes: {dense_density_per_px2: [0.01, 0.02]}\n"
    )
    assert main(["train", "--second-stage", kind, "small.yaml", "--out", "stage", "--device", "cpu", "-q"]) == 0
    assert f"--{kind} stage" in capsys.readouterr().out
    card = json.loads((tmp_path / "stage" / STAGE_FILE).read_text())
    assert card["behind"]["name"]
    assert card["accuracy"]["molecules"] > 0
    recipe = isolated(2000.0, 20.0, frames=2)
    movie, truth = smlm_pb.simulate(recipe, seed=5)
    tifffile.imwrite("movie.tif", movie)
    truth.with_columns(probability=np.full(len(truth), 0.5)).save("locs.hdf5")
    command = {"readout": ["refine", "--method", "map", "--readout"], "verifier": ["verify", "--verifier"]}[kind]
    camera = ["--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1"]
    assert main([command[0], "locs.hdf5", "movie.tif", *command[1:], "stage", *camera, "-q"]) == 0
    name = "locs_refined.hdf5" if kind == "readout" else "locs_verified.hdf5"
    assert smlm_pb.read_table(name).provenance[-1]["step"] in ("refine", "threshold")


def test_options_that_do_not_go_together(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["train", "--second-stage", "readout", "--resume", "--out", out]) == 2
    assert main(["train", "--second-stage", "readout", "--like", "movie.tif", "--out", out]) == 2
    assert "either --second-stage or another way" in capsys.readouterr().err


def test_roc_area_and_calibration_error():
    exists = np.array([True, True, False, False])
    assert roc_area(np.array([0.9, 0.4, 0.4, 0.1]), exists) == pytest.approx(0.875)
    assert calibration_error(np.array([0.95, 0.95, 0.95, 0.05]), exists) == pytest.approx((0.85 + 0.05) / 4)
    assert stated_logit(np.array([0.5, 1.0]))[0] == 0
    assert np.isfinite(stated_logit(np.array([0.0, 1.0]))).all()


def test_a_camera_may_be_given(movie_and_truth):
    movie, _, table, camera = movie_and_truth
    wrong = Camera(offset_adu=camera.offset_adu, e_per_adu=4 * camera.e_per_adu)
    refined = refine_table(table, movie, method="on", camera=wrong, psf_sigma_px=1.1)
    assert np.median(refined["photons"]) > 3 * 2000
    assert refined.info == MovieInfo(**vars(table.info))
