"""``smlm-pb render``: files, options, refusals."""

import matplotlib.image
import numpy as np
import pytest
import tifffile

from smlm_pb.cli.main import main
from smlm_pb.localizations import Localizations, MovieInfo


@pytest.fixture
def locs_path(tmp_path):
    rng = np.random.default_rng(0)
    n = 300
    columns = {
        "frame": rng.integers(0, 50, n),
        "x": rng.uniform(0, 31, n),
        "y": rng.uniform(0, 23, n),
        "photons": rng.uniform(100, 1000, n),
        "sigma_x": np.full(n, 0.1),
        "sigma_y": np.full(n, 0.1),
    }
    path = tmp_path / "movie_locs.hdf5"
    Localizations(columns, MovieInfo(50, 24, 32, 100.0)).save(path)
    return path


def test_picture_lands_beside_the_table(locs_path, capsys):
    assert main(["render", str(locs_path)]) == 0

    assert matplotlib.image.imread(locs_path.with_suffix(".png")).shape[:2] == (240, 320)
    captured = capsys.readouterr()
    assert "300 molecules on 240 × 320 pixels of 10 nm (gaussian)" in captured.err
    assert captured.out == ""


def test_tiff_of_a_region(locs_path, tmp_path):
    out = tmp_path / "part.tif"
    options = ["--pixel-size-nm", "20", "--method", "histogram", "--roi", "-0.5", "-0.5", "9.5", "11.5"]
    assert main(["render", str(locs_path), "--out", str(out), *options]) == 0

    locs = Localizations.load(locs_path)
    assert tifffile.imread(out).shape == (50, 60)
    assert tifffile.imread(out).sum() == np.count_nonzero((locs.y < 9.5) & (locs.x < 11.5))


def test_blur_follows_from_its_width(locs_path, tmp_path, capsys):
    assert main(["render", str(locs_path), "--out", str(tmp_path / "a.png"), "--blur-nm", "30"]) == 0
    assert "(blur)" in capsys.readouterr().err


def test_colour_by_column(locs_path, tmp_path):
    out = tmp_path / "colour.png"
    options = ["--colour-by", "photons", "--colour-limits", "100", "1000", "--colormap", "viridis", "--gamma", "0.5"]
    assert main(["render", str(locs_path), "--out", str(out), "--no-scale-bar", *options]) == 0
    picture = matplotlib.image.imread(out)[:, :, :3]
    assert np.ptp(picture.max(axis=2) - picture.min(axis=2)) > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "image.gif"], "unknown kind of image"),
        (["--out", "no/such/folder/image.png"], "does not exist"),
        (["--colour-by", "depth"], "no column 'depth'"),
        (["--pixel-size-nm", "0.001"], "too large; use --image-pixel-nm"),
        (["--pixel-size-nm", "-1"], "must be > 0"),
        (["--method", "gaussian", "--blur-nm", "3"], "belongs to method 'blur'"),
        (["--roi", "5", "5", "5", "9"], "empty"),
    ],
)
def test_wrong_options_end_in_one_line_and_no_file(locs_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(locs_path.parent)
    before = set(locs_path.parent.iterdir())

    assert main(["render", str(locs_path), *options]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert set(locs_path.parent.iterdir()) == before


def test_the_size_of_the_image_pixels_has_a_name_of_its_own(locs_path, tmp_path, capsys):
    for name in ("--image-pixel-nm", "--pixel-size-nm"):
        out = tmp_path / f"{name.strip('-')}.png"
        assert main(["render", str(locs_path), "--out", str(out), name, "25"]) == 0
        assert "pixels of 25 nm" in capsys.readouterr().err


def test_existing_picture_is_kept(locs_path, capsys):
    picture = locs_path.with_suffix(".png")
    picture.write_text("precious")
    assert main(["render", str(locs_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert picture.read_text() == "precious"
    assert main(["render", str(locs_path), "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
