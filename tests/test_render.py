"""Rendering: exactness of the spots, alignment with the camera, colour, limits."""

import numpy as np
import pytest
from scipy.special import ndtr

from smlm_pb.analysis import render
from smlm_pb.analysis.splatting import add_spots
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.localizations import Localizations, MovieInfo

INFO = MovieInfo(n_frames=100, height=32, width=48, pixel_size_nm=100.0)


def table(x, y, sigma=0.1, info=INFO, **more):
    n = len(x)
    columns = {"frame": np.arange(n) % info.n_frames, "x": x, "y": y}
    if sigma is not None:
        columns |= {"sigma_x": np.broadcast_to(sigma, n), "sigma_y": np.broadcast_to(sigma, n)}
    return Localizations({**columns, **more}, info)


def exact_spots(shape, x, y, sigma, weights=None):
    """The sum of Gaussians integrated over every pixel, one by one."""
    image = np.zeros(shape)
    edges_y, edges_x = np.arange(shape[0] + 1) - 0.5, np.arange(shape[1] + 1) - 0.5
    for k in range(len(x)):
        s = max(sigma[k], 1e-9)
        spot = np.outer(np.diff(ndtr((edges_y - y[k]) / s)), np.diff(ndtr((edges_x - x[k]) / s)))
        image += spot * (1 if weights is None else weights[k])
    return image


@pytest.fixture(params=["few", "many"])
def way(request, monkeypatch):
    """Spots drawn one by one, or by width classes however few they are."""
    if request.param == "many":
        monkeypatch.setattr("smlm_pb.analysis.splatting._FEW", 0.0)
    return request.param


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.3, 0.49, 0.5, 0.7, 1.0, 1.39, 1.4, 2.0, 3.7, 9.0])
def test_single_spots_equal_the_exact_ones(sigma, way):
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(45, 55, (15, 2)):
        image = np.zeros((100, 104), np.float32)
        add_spots(image, np.array([x]), np.array([y]), np.array([sigma]))
        exact = exact_spots(image.shape, [x], [y], [sigma])
        assert np.abs(image - exact).max() < (0.03 if way == "many" else 1e-3) * exact.max()
        assert image.sum() == pytest.approx(1, abs=3e-4)


def test_mixed_widths_equal_the_exact_sum(way):
    rng = np.random.default_rng(1)
    n = 400
    x, y = rng.uniform(-15, 145, (2, n))
    sigma = np.exp(rng.uniform(np.log(0.05), np.log(8), n))
    image = np.zeros((130, 130), np.float32)

    add_spots(image, x, y, sigma)

    exact = exact_spots(image.shape, x, y, sigma)
    assert np.abs(image - exact).max() < 0.02 * exact.max()
    assert np.sqrt(np.mean((image - exact) ** 2)) < 0.005 * exact.std()
    assert image.sum() == pytest.approx(exact.sum(), rel=1e-4)


def test_mean_and_variance_of_a_spot_are_exact_between_the_pixels_and_between_the_width_classes(way):
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, y, sigma = rng.uniform(40, 41), rng.uniform(40, 41), rng.uniform(0.6, 5)
        image = np.zeros((81, 3000), np.float32)
        # The two far spots stretch the range of widths, so that the first lies between two classes.
        add_spots(image, np.array([x, 1500, 2500]), np.array([y, 40, 40]), np.array([sigma, 0.55, 6.0]))
        spot = image[:, :81].astype(float)
        rows, columns = np.mgrid[:81, :81]
        mean_y, mean_x = (spot * rows).sum() / spot.sum(), (spot * columns).sum() / spot.sum()
        variance = (spot * (rows - mean_y) ** 2).sum() / spot.sum()
        assert (mean_x, mean_y) == (pytest.approx(x, abs=2e-3), pytest.approx(y, abs=2e-3))
        assert variance == pytest.approx(sigma**2 + 1 / 12, rel=0.015)


def test_tiles_leave_no_seam(monkeypatch, way):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-5, 105, (2, 500))
    sigma = rng.uniform(0.2, 4, 500)
    whole, tiled = np.zeros((100, 100), np.float32), np.zeros((100, 100), np.float32)
    add_spots(whole, x, y, sigma)

    monkeypatch.setattr("smlm_pb.analysis.splatting._TILE_PX", 23)
    monkeypatch.setattr("smlm_pb.analysis.splatting._CHUNK", 17)
    add_spots(tiled, x, y, sigma)

    # Few spots per tile are drawn exactly, many by classes; both within what is promised.
    assert np.abs(tiled - whole).max() < (1e-4 if way == "many" else 0.01) * whole.max()


def test_weights_scale_every_channel(way):
    rng = np.random.default_rng(4)
    x, y = rng.uniform(5, 35, (2, 60))
    sigma, weights = rng.uniform(0.1, 3, 60), rng.random((60, 3))
    image = np.zeros((40, 40, 3), np.float32)

    add_spots(image, x, y, sigma, weights)

    for c in range(3):
        exact = exact_spots((40, 40), x, y, sigma, weights[:, c])
        assert np.abs(image[:, :, c] - exact).max() < 0.03 * exact.max()


@pytest.mark.parametrize("method", ["gaussian", "histogram", "blur"])
def test_every_molecule_inside_weighs_one(method):
    rng = np.random.default_rng(5)
    locs = table(rng.uniform(5, 40, 500), rng.uniform(5, 25, 500), 0.15)

    rendering = render(locs, method=method)

    assert rendering.image.shape == (320, 480)
    assert rendering.image.dtype == np.float32
    assert rendering.image.sum() == pytest.approx(500, rel=1e-3)
    assert rendering.n_molecules == 500


@pytest.mark.parametrize("method", ["gaussian", "histogram", "blur"])
@pytest.mark.parametrize("pixel_size_nm", [7.0, 10.0, 50.0, 130.0])
def test_a_molecule_appears_where_scale_and_translation_say(method, pixel_size_nm):
    x, y = 20.37, 11.81
    rendering = render(table([x], [y], 0.8), method=method, pixel_size_nm=pixel_size_nm)

    rows, columns = np.mgrid[: rendering.image.shape[0], : rendering.image.shape[1]]
    scale, translate = rendering.scale_px, rendering.translate_px
    centre_y = (rendering.image * (rows * scale[0] + translate[0])).sum() / rendering.image.sum()
    centre_x = (rendering.image * (columns * scale[1] + translate[1])).sum() / rendering.image.sum()

    tolerance = 0.5 * scale[0] + 1e-3 if method == "histogram" else 2e-3
    assert centre_y == pytest.approx(y, abs=tolerance)
    assert centre_x == pytest.approx(x, abs=tolerance)


def test_geometry_of_whole_factors_is_napari_s():
    rendering = render(table([1.0], [1.0]), pixel_size_nm=25.0)

    assert rendering.scale_px == (0.25, 0.25)
    assert rendering.translate_px == (-0.5 + 0.125, -0.5 + 0.125)


def test_histogram_counts_by_the_floor_rule():
    factor = 4
    rng = np.random.default_rng(6)
    locs = table(rng.uniform(-0.5, 47.49, 300), rng.uniform(-0.5, 31.49, 300))

    image = render(locs, method="histogram", pixel_size_nm=100 / factor).image

    expected = np.zeros((32 * factor, 48 * factor))
    rows = np.floor((locs.y.astype(float) + 0.5) * factor).astype(int)
    columns = np.floor((locs.x.astype(float) + 0.5) * factor).astype(int)
    np.add.at(expected, (rows, columns), 1)
    assert np.abs(image - expected).sum() <= 2  # float32 positions on an edge may go either way


def test_region_shows_the_same_pixels_as_the_whole():
    rng = np.random.default_rng(7)
    locs = table(rng.uniform(0, 47, 400), rng.uniform(0, 31, 400), rng.uniform(0.02, 0.6, 400))

    whole = render(locs, pixel_size_nm=20)
    part = render(locs, pixel_size_nm=20, roi=(4.5, 9.5, 14.5, 29.5))

    assert part.image.shape == (50, 100)
    assert np.abs(part.image - whole.image[25:75, 50:150]).max() < 0.02 * whole.image.max()
    assert part.translate_px == (pytest.approx(4.6), pytest.approx(9.6))


def test_least_blur_and_fixed_blur_agree_where_all_are_sharper():
    rng = np.random.default_rng(8)
    locs = table(rng.uniform(5, 40, 50), rng.uniform(5, 25, 50), 0.01)

    assert np.allclose(
        render(locs, min_blur_nm=30).image, render(locs, method="blur", blur_nm=30).image, rtol=0, atol=1e-6
    )


def test_blocks_add_up_to_the_whole():
    rng = np.random.default_rng(9)
    locs = table(rng.uniform(5, 40, 300), rng.uniform(5, 25, 300), rng.uniform(0.05, 0.3, 300))

    blocks = render(locs.select(slice(k, k + 100)) for k in (0, 100, 200))

    assert blocks.n_molecules == 300
    assert np.abs(blocks.image - render(locs).image).max() < 0.03 * blocks.image.max()


def test_colour_tells_the_column_and_brightness_the_number():
    locs = table([10.0, 30.0], [10.0, 10.0], 0.2, z=[-300.0, 300.0])

    rendering = render(locs, colour_by="z", colour_limits=(-300, 300), colormap="jet")

    image = rendering.image
    assert image.shape == (320, 480, 3)
    left, right = image[105, 105], image[105, 305]
    assert left[2] > 10 * left[0]
    assert right[0] > 10 * right[2]
    assert rendering.colour == {"column": "z", "limits": (-300, 300), "colormap": "jet"}


def test_colour_by_frame_and_by_derived_quantity():
    rng = np.random.default_rng(10)
    locs = table(rng.uniform(5, 40, 50), rng.uniform(5, 25, 50), rng.uniform(0.1, 0.2, 50))

    assert render(locs, colour_by="frame").colour["limits"] == pytest.approx((0.49, 48.51))
    low, high = render(locs, colour_by="sigma_nm", method="histogram").colour["limits"]
    assert 10 <= low < high <= 20
    with pytest.raises(TableError, match="no column 'depth'"):
        render(locs, colour_by="depth")


def test_empty_table_gives_a_black_image():
    for method in ("gaussian", "histogram", "blur"):
        rendering = render(Localizations.empty(INFO), method=method)
        assert rendering.image.shape == (320, 480)
        assert rendering.image.sum() == 0
    assert render(Localizations.empty(INFO), colour_by="frame").image.shape == (320, 480, 3)


def test_molecules_without_a_precision_are_left_out_and_named():
    locs = table([10.0, 20.0, 30.0], [10.0, 10.0, 10.0], np.array([0.1, np.nan, -0.1]))

    with pytest.warns(UserWarning, match="2 of 3 molecules have no valid sigma"):
        rendering = render(locs)

    assert rendering.image.sum() == pytest.approx(1, abs=1e-3)
    assert rendering.n_molecules == 1


@pytest.mark.parametrize("method", ["gaussian", "histogram", "blur"])
def test_molecules_outside_of_the_image_are_told(method):
    """Positions in nm taken for pixels make a black image, and nobody knows why."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 47, 100), rng.uniform(0, 31, 100)
    with pytest.warns(UserWarning, match="100 of 100 molecules lie outside of the frame of 32×48 px: check unit"):
        render(table(100 * x + 100, 100 * y + 100), method=method)
    with pytest.warns(UserWarning, match="50 of 100 molecules lie outside of the frame"):
        render([table(x[:50], y[:50]), table(x[50:] - 60, y[50:])], method=method)
    with pytest.warns(UserWarning, match="100 of 100 molecules lie outside of the region"):
        render(table(x, y), method=method, roi=(100, 100, 110, 110))
    x[:3] = -2  # a few, as after drift; and most, where a region was chosen
    render(table(x, y), method=method)
    render(table(x, y), method=method, roi=(0, 0, 20, 20))


def test_missing_precision_names_the_other_methods():
    locs = table([10.0], [10.0], None)
    with pytest.raises(TableError, match=r"sigma_x and sigma_y.*'blur' or 'histogram'"):
        render(locs)
    assert render(locs, method="blur").image.sum() == pytest.approx(1, abs=1e-3)


def test_unknown_camera_pixel_is_asked_for():
    locs = table([10.0], [10.0], info=MovieInfo(100, 32, 48))
    with pytest.raises(TableError, match="give camera_pixel_size_nm"):
        render(locs)
    assert render(locs, camera_pixel_size_nm=160).image.shape == (512, 768)


def test_an_absurdly_large_image_is_refused_with_a_pixel_size_that_fits():
    locs = table([10.0], [10.0])
    with pytest.raises(ConfigurationError, match=r"too large; use pixel_size_nm ≥ 0\.2") as caught:
        render(locs, pixel_size_nm=0.001)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="too large"):
        render(locs, max_megapixels=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fancy"}, "gaussian, histogram, blur"),
        ({"pixel_size_nm": 0}, "above 0"),
        ({"pixel_size_nm": float("nan")}, "above 0"),
        ({"blur_nm": 10}, "belongs to method 'blur'"),
        ({"method": "blur", "blur_nm": -1}, "from 0"),
        ({"min_blur_nm": -1}, "from 0"),
        ({"roi": (5, 5, 5, 10)}, "empty"),
        ({"colour_by": "frame", "colormap": "rainbows"}, "Unknown colormap"),
        ({"colour_by": "frame", "colour_limits": (2, 1)}, "ascending"),
        ({"camera_pixel_size_nm": -3}, "camera_pixel_size_nm"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ConfigurationError, match=message):
        render(table([10.0], [10.0]), **options)


def test_very_wide_spots_do_not_explode():
    locs = table([10.0, 20.0], [10.0, 10.0], np.array([0.1, 1e4]))

    rendering = render(locs)

    assert np.isfinite(rendering.image).all()
    assert rendering.image[105, 105] > 0.1


def test_a_million_molecules():
    rng = np.random.default_rng(11)
    info = MovieInfo(1000, 128, 128, 100.0)
    n = 1_000_000
    locs = table(rng.uniform(0, 127, n), rng.uniform(0, 127, n), rng.uniform(0.05, 0.3, n), info)

    image = render(locs).image

    assert image.sum() == pytest.approx(n, rel=0.01)
