"""Movies on disk: what the command writes, what it refuses, and the shipped sample."""

from importlib.resources import files

import numpy as np
import pytest

from smlm_pb import open_movie, read_table
from smlm_pb.cli.main import main
from smlm_pb.errors import Cancelled, OutputError
from smlm_pb.simulation import Recipe, simulate
from smlm_pb.simulation.files import simulate_to_file

TEXT = """\
# A comment that the copy keeps.
name: little
frames: 5
height: 20
width: 24
pixel_size_nm: 120
exposure_ms: 25
molecules: {density_per_um2: 3, blinking: {on_frames: 1, off_frames: 20}}
"""


@pytest.fixture
def recipe_path(tmp_path):
    path = tmp_path / "little.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_files_hold_what_python_returns(recipe_path, tmp_path):
    out = tmp_path / "results" / "deep"
    written = simulate_to_file(recipe_path, out, seed=3)
    assert {"little.tif", "little_truth.csv", "little.yaml"} <= {path.name for path in written}
    movie, truth = simulate(recipe_path, seed=3)
    on_disk = open_movie(out / "little.tif")
    assert np.array_equal(on_disk.read(0, 5), movie)
    assert on_disk.pixel_size_nm == pytest.approx(120)
    table = read_table(out / "little_truth.csv")
    assert len(table) == len(truth)
    assert np.array_equal(table.frame, truth.frame)
    assert table.x == pytest.approx(truth.x, abs=1e-4)
    assert table.y == pytest.approx(truth.y, abs=1e-4)
    assert table.photons == pytest.approx(truth.photons, rel=1e-5)
    assert table.background == pytest.approx(truth.background, rel=1e-5)
    assert np.array_equal(table["molecule"], truth["molecule"])


def test_the_copy_of_the_recipe_makes_the_same_movie_again(recipe_path, tmp_path):
    simulate_to_file(recipe_path, tmp_path / "plain")
    assert (tmp_path / "plain" / "little.yaml").read_text(encoding="utf-8") == TEXT
    simulate_to_file(recipe_path, tmp_path / "seeded", seed=9)
    movie, _ = simulate(tmp_path / "seeded" / "little.yaml")
    assert np.array_equal(open_movie(tmp_path / "seeded" / "little.tif").read(0, 5), movie)


def test_results_beside_the_recipe_leave_it_alone(recipe_path, tmp_path):
    simulate_to_file(recipe_path, tmp_path)
    assert recipe_path.read_text(encoding="utf-8") == TEXT
    with pytest.raises(OutputError, match=r"would replace .*little\.yaml itself"):
        simulate_to_file(recipe_path, tmp_path, seed=2, overwrite=True)


@pytest.mark.parametrize("name", ["little.tif", "little_truth.csv", "little.yaml", "little_truth-protocol.txt"])
def test_existing_results_are_kept(recipe_path, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    with pytest.raises(OutputError, match=f"{name} exists already"):
        simulate_to_file(recipe_path, out)
    assert [path.name for path in out.iterdir()] == [name]
    simulate_to_file(recipe_path, out, overwrite=True)
    assert (out / name).read_bytes() != b"precious"


def test_stopping_leaves_nothing_behind(recipe_path, tmp_path):
    seen = []
    with pytest.raises(Cancelled, match="after 2 of 5 frames; nothing was written"):
        simulate_to_file(
            recipe_path,
            tmp_path / "out",
            on_progress=lambda done, total: seen.append((done, total)),
            should_stop=lambda: len(seen) == 2,
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failing_writer_leaves_nothing_behind(recipe_path, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smlm_pb.formats.write_table", fail)
    with pytest.raises(OSError, match="No space"):
        simulate_to_file(recipe_path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_command_writes_and_names_its_files(recipe_path, tmp_path, capsys):
    assert main(["simulate", str(recipe_path), "--out", str(tmp_path / "out"), "--progress", "json"]) == 0
    printed = capsys.readouterr()
    assert str(tmp_path / "out" / "little.tif") in printed.out.splitlines()
    assert '"done": 5, "total": 5' in printed.err


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("frames: 0\nmolecules: {per_frame: 1}\n", [], "frames = 0 must be greater than or equal to 1"),
        (TEXT, ["--out", "FILE"], "is a file; give a folder"),
        (TEXT, ["--out", "FILE/below"], "cannot be written to"),
        (TEXT, ["--seed", "-1"], "--seed"),
    ],
)
def test_command_answers_mistakes_with_one_line(tmp_path, capsys, text, arguments, message):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "file").write_text("")
    arguments = [a.replace("FILE", str(tmp_path / "file")) for a in arguments]
    assert main(["simulate", str(path), "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_the_sample_is_what_its_recipe_makes():
    folder = files("smlm_pb.sample_data")
    recipe = Recipe.from_yaml(folder / "filaments.yaml")
    movie = open_movie(folder / "filaments.tif")
    truth = read_table(folder / "filaments_truth.csv")
    assert (movie.n_frames, movie.height, movie.width) == (recipe.frames, *recipe.shape)
    assert movie.pixel_size_nm == pytest.approx(recipe.pixel_size_nm)
    assert truth.info.pixel_size_nm == pytest.approx(recipe.pixel_size_nm)
    assert len(truth) / recipe.frames > 100
    # Light is where the truth says: the movie equals the truth's own picture within its noise.
    from smlm_pb.simulation.rendering import render_separable

    camera = recipe.camera.camera()
    for frame in (0, 100, 199):
        one = truth.select(truth.frame == frame)
        expected = render_separable(one.x, one.y, one.photons, one.psf_sigma_x, recipe.shape)
        image = camera.to_electrons(movie.read(frame, frame + 1)[0])
        inner = (slice(8, -8), slice(8, -8))  # molecules outside the frame shine into its border
        residual = (image - expected)[inner]
        assert np.corrcoef(image[inner].ravel(), expected[inner].ravel())[0, 1] > 0.98
        assert 3 < residual.mean() < 30
