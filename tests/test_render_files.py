"""Images as files: scale, contrast, scale bar, nothing half-written."""

import matplotlib.image
import numpy as np
import pytest
import tifffile

from smlm_pb.analysis import render, save_image
from smlm_pb.analysis.picture import draw_scale_bar, full_brightness, nice_length, to_picture
from smlm_pb.errors import ConfigurationError, OutputError
from smlm_pb.localizations import Localizations, MovieInfo


@pytest.fixture
def rendering():
    rng = np.random.default_rng(0)
    info = MovieInfo(100, 32, 48, 100.0)
    n = 2000
    columns = {
        "frame": rng.integers(0, 100, n),
        "x": rng.uniform(0, 47, n),
        "y": rng.uniform(0, 31, n),
        "sigma_x": np.full(n, 0.2),
        "sigma_y": np.full(n, 0.2),
    }
    return render(Localizations(columns, info))


def test_float_tiff_keeps_values_and_scale(rendering, tmp_path):
    path = save_image(rendering, tmp_path / "image.tif")

    with tifffile.TiffFile(path) as tif:
        assert np.array_equal(tif.asarray(), rendering.image)
        assert tif.is_imagej
        assert tif.imagej_metadata["unit"] == "um"
        numerator, denominator = tif.pages[0].tags["XResolution"].value
    assert numerator / denominator == pytest.approx(100)  # 100 pixels of 10 nm per µm


def test_uint16_tiff_is_stretched_and_says_how(rendering, tmp_path):
    path = save_image(rendering, tmp_path / "image.tiff", dtype="uint16")

    with tifffile.TiffFile(path) as tif:
        values, info = tif.asarray(), tif.imagej_metadata["Info"]
    factor = float(info.split("×")[1])
    assert values.dtype == np.uint16
    assert values.max() == 65535
    assert np.abs(values / factor - rendering.image).max() < 1 / factor


def test_colour_tiff_has_three_channels(tmp_path):
    image = np.random.default_rng(1).random((20, 30, 3)).astype(np.float32)

    path = save_image(image, tmp_path / "image.tif", pixel_size_nm=20)

    assert np.array_equal(tifffile.imread(path), np.moveaxis(image, 2, 0))


def test_png_has_the_pixels_of_the_image_and_a_scale_bar_of_the_right_length(rendering, tmp_path):
    path = save_image(rendering, tmp_path / "image.png", colormap="gray")
    plain = save_image(rendering, tmp_path / "plain.png", colormap="gray", scale_bar=False)

    with_bar, without = (matplotlib.image.imread(p)[:, :, :3] for p in (path, plain))
    assert with_bar.shape == (320, 480, 3)
    changed = (with_bar != without).any(axis=2)
    assert not changed[:240].any()
    assert not changed[:, :240].any()
    bar_row = with_bar[320 - round(0.03 * 320) - 1]
    white = np.flatnonzero((bar_row == 1).all(axis=1))
    assert np.count_nonzero(np.diff(white) == 1) + 1 >= 100  # 1 µm in pixels of 10 nm
    assert white[-1] - white[-100] == 99


def test_brightness_is_set_by_the_filled_pixels():
    image = np.zeros((200, 200), np.float32)
    image[50:60, 50:60] = 1.0
    image[0, 0] = 40.0

    assert full_brightness(image, 95) == pytest.approx(1, rel=0.1)
    picture = to_picture(image, colormap="gray", percentile=95)
    assert picture[55, 55, 0] >= 250
    assert picture[100, 100, 0] == 0
    assert to_picture(np.zeros((5, 5), np.float32)).shape == (5, 5, 3)


def test_gamma_lifts_dim_structures():
    image = np.array([[0.0, 0.1, 1.0]], np.float32)

    assert to_picture(image, colormap="gray", gamma=0.5)[0, 1, 0] > to_picture(image, colormap="gray")[0, 1, 0]


def test_colours_keep_their_hue_under_contrast():
    image = np.zeros((4, 4, 3), np.float32)
    image[1, 1] = (0.2, 0.1, 0.0)
    image[2, 2] = (0.4, 0.2, 0.0)

    picture = to_picture(image, percentile=100)

    assert picture[2, 2].tolist() == [255, 128, 0]
    assert picture[1, 1, 0] == 2 * picture[1, 1, 1]


@pytest.mark.parametrize(("at_most", "length"), [(1.0, 1), (4.9, 2), (5, 5), (999, 500), (1000, 1000), (0.3, 0.2)])
def test_scale_bars_have_round_lengths(at_most, length):
    assert nice_length(at_most) == pytest.approx(length)


def test_tiny_images_get_no_bar():
    picture = np.zeros((20, 20, 3), np.uint8)
    assert draw_scale_bar(picture, 10.0) is picture


def test_existing_files_are_kept_unless_told_otherwise(rendering, tmp_path):
    path = tmp_path / "image.png"
    path.write_text("precious")

    with pytest.raises(OutputError, match="exists already"):
        save_image(rendering, path)
    assert path.read_text() == "precious"

    save_image(rendering, path, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["image.png"]


def test_a_failing_writer_leaves_nothing_behind(rendering, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tifffile.imwrite", fail)
    with pytest.raises(OutputError, match="No space"):
        save_image(rendering, tmp_path / "image.tif")
    assert list(tmp_path.iterdir()) == []


def test_unusable_targets_and_images_are_named(rendering, tmp_path):
    with pytest.raises(OutputError, match=r"'\.gif'; use \.png"):
        save_image(rendering, tmp_path / "image.gif")
    with pytest.raises(OutputError, match="does not exist"):
        save_image(rendering, tmp_path / "nowhere" / "image.png")
    with pytest.raises(OutputError, match="is a folder"):
        save_image(
            rendering, tmp_path.with_name(tmp_path.name + ".png").mkdir() or tmp_path.with_name(tmp_path.name + ".png")
        )
    with pytest.raises(ConfigurationError, match="must be"):
        save_image(np.zeros((3, 3, 4)), tmp_path / "image.png")
    with pytest.raises(ConfigurationError, match="not finite"):
        save_image(np.full((3, 3), np.nan), tmp_path / "image.png")
    with pytest.raises(ConfigurationError, match="float32 or uint16"):
        save_image(rendering, tmp_path / "image.tif", dtype="int8")
    with pytest.raises(ConfigurationError, match="percentile"):
        save_image(rendering, tmp_path / "image.png", percentile=0)
