"""Fine-tunes for one's own movie: what is measured is true, the unbelievable is refused, nothing starts unasked."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from hand_made_model import PSF_SIGMA_PX, make_model, make_movie

from smlm_pb.cli import main as cli
from smlm_pb.errors import ConfigurationError, MovieError, OutputError
from smlm_pb.localization import load_model
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation import simulate
from smlm_pb.training import Experiment, propose_like, train
from smlm_pb.training.arrangement import arrangement_of
from smlm_pb.training.likeness_figure import frames_to_compare

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5}
FRAME_PX = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def movie():
    return make_movie(60, (FRAME_PX, FRAME_PX), per_frame=4, seed=4)[0]


@pytest.fixture(scope="module")
def likeness(model, movie):
    return propose_like(movie, start=model, name="mine", steps=20, **CAMERA)


def test_what_is_measured_is_what_was_simulated(likeness):
    measure = likeness.measure
    assert measure.conditions.psf_sigma_px == pytest.approx(PSF_SIGMA_PX, rel=0.05)
    assert measure.background_e[1] == pytest.approx(20, rel=0.1)
    assert measure.found.mean_density_per_px2 == pytest.approx(4 / FRAME_PX**2, rel=0.25)
    assert measure.found.frames == 60


def test_the_training_is_narrowed_to_the_movie(likeness):
    scenes = likeness.experiment.scene_settings()
    low, high = scenes.psf_sigma_px
    assert low < PSF_SIGMA_PX < high < 1.2 * low
    assert scenes.background_e[0] < 20 < scenes.background_e[1] < 60
    assert scenes.photons[1] / scenes.photons[0] == pytest.approx(1.6**2, rel=0.05)
    assert scenes.em_fraction == 0
    assert scenes.dense_density_per_px2[1] >= 4 / FRAME_PX**2


def test_the_simulation_is_corrected_until_the_model_finds_the_same(likeness):
    """The model's photons are arbitrary (its head says 1 everywhere); what it finds must agree, not what is true."""
    ratio = likeness.scenes.found.mean_density_per_px2 / likeness.measure.found.mean_density_per_px2
    assert 0.5 < ratio < 2


def test_the_same_seed_gives_the_same_proposal(model, movie, likeness):
    again = propose_like(movie, start=model, name="mine", steps=20, **CAMERA)
    assert again.experiment.scenes == likeness.experiment.scenes


def test_real_and_simulated_frames_are_on_one_scale(likeness):
    real, simulated = frames_to_compare(likeness)
    assert real.shape == simulated.shape == (5, FRAME_PX, FRAME_PX)
    assert np.median(simulated) == pytest.approx(np.median(real), rel=0.4)


def test_files_are_written_and_never_replaced_unasked(likeness, tmp_path):
    experiment, figure = likeness.save(tmp_path / "new")
    assert figure.read_bytes().startswith(b"\x89PNG")
    stored = Experiment.from_yaml(experiment).model_dump(mode="json")
    assert stored == likeness.experiment.model_dump(mode="json")
    with pytest.raises(OutputError, match="overwrite=True"):
        likeness.save(tmp_path / "new")
    likeness.save(tmp_path / "new", overwrite=True)


def test_the_card_tells_movie_start_and_command(likeness, model, tmp_path):
    small = {"crop_px": 32, "batch_size": 2, "workers": 0, "steps": 2, "validation": {"scenes": 2, "every_steps": 1}}
    content = {**likeness.experiment.model_dump(mode="json"), **small, "validation": {**small["validation"]}}
    content["validation"]["calibration_scenes"] = 0
    result = train(Experiment.from_dict(content), tmp_path / "run", device="cpu", command="the command")
    assert "NaN" not in (result.model_folder / "card.json").read_text()
    training = load_model(result.model_folder, "cpu").card.training
    assert training["command"] == "the command"
    assert training["seed"] == 0
    assert training["start"]["model"] == "hand-made"
    assert training["start"]["validation"]["jaccard"] == result.start_validation.jaccard
    assert training["like"]["fingerprint"] == likeness.measure.fingerprint
    assert training["like"]["measured_with"]["model"] == "hand-made"
    assert result.validation.jaccard >= result.start_validation.jaccard, "a fine-tune must not end worse"
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [entry["step"] for entry in history] == [0, 1, 2]


def test_ranges_of_an_electron_multiplying_camera_are_told_as_the_network_sees_them(likeness, tmp_path):
    from smlm_pb.networks import build_network
    from smlm_pb.training.export import export_model

    content = likeness.experiment.model_dump(mode="json")
    content["scenes"] = {"photons": [400, 1000], "background_e": [10, 30], "em_fraction": 1.0}
    experiment = Experiment.from_dict(content)
    network = build_network(experiment.network)
    export_model(network, experiment, tmp_path / "em", steps=1, seconds=1, validation=None, command="")
    card = load_model(tmp_path / "em", "cpu").card
    assert card.photons == (200.0, 500.0)
    assert card.background_e == (5.0, 15.0)


# ---- what cannot be believed


def test_a_movie_with_few_molecules_is_refused(model):
    few = make_movie(16, (FRAME_PX, FRAME_PX), per_frame=2, seed=1)[0]
    with pytest.raises(MovieError, match=r"only \d+ molecules .* longer movie"):
        propose_like(few, start=model, **CAMERA)


def test_a_movie_without_molecules_is_refused(model):
    blank = (100 + 2 * np.random.default_rng(0).poisson(20, (30, 32, 32))).astype(np.uint16)
    with pytest.raises(MovieError, match="width of the PSF cannot be measured"):
        propose_like(blank, start=model, **CAMERA)
    with pytest.raises(MovieError, match="molecules were found"):
        propose_like(blank, start=model, psf_sigma_px=1.1, **CAMERA)


def test_a_psf_far_outside_of_the_model_is_refused(movie, model):
    with pytest.raises(MovieError, match=r"PSF of 3 px is too far .* experiment file"):
        propose_like(movie, start=model, psf_sigma_px=3.0, **CAMERA)


def test_saturated_molecules_are_refused(movie, model):
    with pytest.raises(MovieError, match="pixels are saturated"):
        propose_like(np.minimum(movie, 511), start=model, psf_sigma_px=PSF_SIGMA_PX, **CAMERA)


def test_a_density_beyond_the_model_is_refused_and_warned_of(movie, tmp_path):
    density = 4 / FRAME_PX**2
    narrow = make_model(tmp_path / "narrow", density_per_px2=(0.0, density / 4))
    with pytest.raises(MovieError, match="model for crowded movies"):
        propose_like(movie, start=narrow, **CAMERA)
    near = make_model(tmp_path / "near", density_per_px2=(0.0, density / 1.5))
    assert any("how many there really are" in text for text in propose_like(movie, start=near, **CAMERA).warnings)


# ---- on what molecules lie


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        ({"kind": "uniform"}, "uniform"),
        ({"kind": "filaments", "count": 12}, "filaments"),
        ({"kind": "clusters", "count": 30}, "spots"),
        ({"kind": "rings", "count": 40}, "spots"),
    ],
)
def test_structures_are_told_apart(structure, expected):
    molecules = {"density_per_um2": 2.0, "photons": 1000.0, "blinking": {"on_frames": 2.0, "off_frames": 200.0}}
    recipe = {"frames": 60, "structure": structure, "molecules": molecules}
    assert arrangement_of(simulate(recipe, seed=5)[1]) == expected


def test_too_few_pairs_tell_nothing():
    info = MovieInfo(3, 32, 32, 100.0)
    assert arrangement_of(Localizations({"frame": [0, 1, 2], "x": [1, 2, 3], "y": [1, 2, 3]}, info)) == "unknown"
    assert arrangement_of(Localizations.empty(info)) == "unknown"


# ---- the command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, movie, model):
    """Run ``smlm-pb train --like`` on the movie; returns code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("movie.tif", movie, photometric="minisblack")

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(
            ["train", "--like", "movie.tif", "--from", str(model), "--out", "run", "--offset-adu", "100",
             "--e-per-adu", "0.5", "--steps", "1", *arguments]
        )  # fmt: skip
        return code, *capsys.readouterr()

    return run


def test_without_a_person_nothing_is_trained(command, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, out, err = command()
    assert code == 0
    assert "in simulated frames" in out
    assert "'smlm-pb train run/experiment.yaml --out run' does it" in err
    assert Path("run/likeness.png").exists()
    assert not Path("run/checkpoint.safetensors").exists()
    content = yaml.safe_load(Path("run/experiment.yaml").read_text())
    assert content["name"] == "like-movie"
    assert content["like"]["movie"].startswith("movie")
    code, _, err = command()
    assert code == 2
    assert "is there already" in err
    assert command("--dry-run", "--overwrite")[0] == 0


@pytest.mark.parametrize(("answer", "trained"), [("n", False), ("", False), ("yes", True)])
def test_a_person_is_asked(command, likeness, monkeypatch, answer, trained):
    asked = []
    monkeypatch.setattr("smlm_pb.training.likeness.propose_like", lambda movie, **options: likeness)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    monkeypatch.setattr("smlm_pb.cli.train._train", lambda experiment, path, args: asked.append(str(path)) or 0)
    assert command()[0] == 0
    assert "likeness.png" in asked[0]
    assert (asked[1:] == [str(Path("run/experiment.yaml"))]) == trained


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume"], "--resume continues from the experiment file"),
        (["--from", "nonsense"], "Unknown model"),
        (["--name", "my model"], "name"),
    ],
)
def test_wrong_options_are_one_line(command, arguments, words):
    code, _, err = command("--dry-run", *arguments)
    assert code == 2
    assert words in err
    assert not Path("run/experiment.yaml").exists()


def test_options_of_like_are_refused_without_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("name: a\n")
    assert cli.main(["train", "a.yaml", "--out", "run", "--steps", "5"]) == 2
    assert "--steps goes with --like" in capsys.readouterr().err
    assert cli.main(["train", "--out", "run"]) == 2
    assert "--like" in capsys.readouterr().err
    assert cli.main(["train", "a.yaml", "--like", "b.tif", "--out", "run"]) == 2
    assert "not both" in capsys.readouterr().err


def test_errors_are_our_own(model):
    with pytest.raises(ConfigurationError, match="psf_sigma_px"):
        propose_like(np.zeros((3, 16, 16)), start=model, psf_sigma_px=-1)
