"""The camera: moments of its noise, conversion there and back, and values no camera can have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError


@pytest.mark.parametrize("mean_e", [0.0, 3.0, 40.0, 700.0])
@pytest.mark.parametrize("em_gain", [1.0, 150.0])
def test_mean_and_variance_of_photo_electrons(mean_e, em_gain):
    camera = Camera(offset_adu=500, e_per_adu=0.5 if em_gain == 1 else 12.0, em_gain=em_gain, read_noise_e=8.0)
    rng = np.random.default_rng(1)
    electrons = camera.to_electrons(camera.digitize(np.full((400, 400), mean_e), rng)).astype(float)
    rounding = (camera.e_per_adu / camera.em_gain) ** 2 / 12
    variance = camera.excess_noise_factor * mean_e + camera.read_variance_e2 + rounding
    # 160 000 values: standard errors are sd/400 and var·√(2/160 000), wider for the gamma tail.
    assert electrons.mean() == pytest.approx(mean_e, abs=4 * np.sqrt(variance) / 400)
    assert electrons.var() == pytest.approx(variance, rel=0.02)


def test_electron_multiplication_doubles_photon_noise_and_shrinks_read_noise():
    plain, multiplied = Camera(em_gain=1, read_noise_e=30), Camera(em_gain=300, read_noise_e=30)
    assert (plain.excess_noise_factor, multiplied.excess_noise_factor) == (1, 2)
    assert multiplied.read_variance_e2 == pytest.approx(0.01)


@given(
    offset=st.floats(0, 2000),
    e_per_adu=st.floats(0.05, 20),
    em_gain=st.floats(1, 1000),
    adu=st.integers(0, 65_535),
)
def test_conversion_is_the_data_sheets_formula(offset, e_per_adu, em_gain, adu):
    camera = Camera(offset_adu=offset, e_per_adu=e_per_adu, em_gain=em_gain)
    expected = (adu - offset) * e_per_adu / em_gain
    assert float(camera.to_electrons(np.uint16(adu))) == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_unsigned_values_below_the_offset_do_not_wrap_around():
    assert Camera(offset_adu=100).to_electrons(np.array([90], dtype=np.uint16))[0] == -10


def test_values_are_clipped_to_the_range_of_the_camera():
    camera = Camera(offset_adu=100, read_noise_e=0)
    adu = camera.digitize(np.array([[0.0, 1e7]]), np.random.default_rng(0))
    assert adu.dtype == np.uint16
    assert adu.tolist() == [[100, 65_535]]


def test_same_seed_same_noise():
    camera, expected = Camera(em_gain=50), np.full((8, 8), 20.0)
    first, second = (camera.digitize(expected, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)


def test_maps_hold_pixel_by_pixel():
    offset = np.array([[100.0, 200.0], [300.0, 400.0]])
    camera = Camera(offset_adu=offset, e_per_adu=np.full((2, 2), 0.5), read_noise_e=np.array([[0, 0], [0, 50.0]]))
    adu = camera.digitize(np.zeros((500, 2, 2)), np.random.default_rng(2))
    assert np.all(adu[:, 0, 0] == 100)
    assert adu[:, 1, 1].std() == pytest.approx(100, rel=0.15)
    assert np.all(camera.to_electrons(offset) == 0)
    assert camera.as_dict()["offset_adu"] == 250


def test_a_map_of_another_size_is_refused():
    camera = Camera(offset_adu=np.full((4, 5), 100.0))
    with pytest.raises(CameraError, match="offset_adu is 4×5 pixels, the frames are 5×4"):
        camera.to_electrons(np.zeros((3, 5, 4)))
    with pytest.raises(CameraError, match="crop the map"):
        camera.digitize(np.zeros((5, 4)), np.random.default_rng(0))


def test_maps_may_be_nested_lists():
    camera = Camera(offset_adu=[[100, 200]], e_per_adu=[[0.5, 1.0]], read_noise_e=[[1.0, 2.0]], em_gain=2)
    np.testing.assert_allclose(camera.to_electrons([[[110, 220]]]), [[[2.5, 10]]])
    np.testing.assert_allclose(camera.read_variance_e2, [[0.25, 1.0]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"offset_adu": np.nan}, "offset_adu = nan must be finite"),
        ({"e_per_adu": 0}, "e_per_adu = 0 must be > 0"),
        ({"e_per_adu": np.inf}, "e_per_adu = inf"),
        ({"em_gain": 0.5}, "em_gain = 0.5 must be ≥ 1"),
        ({"read_noise_e": -1}, "read_noise_e = -1"),
        ({"quantum_efficiency": 1.2}, "quantum_efficiency = 1.2"),
        ({"e_per_adu": "two"}, "e_per_adu = 'two' is not a number"),
        ({"e_per_adu": "0.5"}, "e_per_adu = '0.5' is not a number"),
        ({"e_per_adu": 1e30}, r"e_per_adu = 1e\+30 must be > 0 and < 1e9"),
        ({"offset_adu": -1e30}, r"offset_adu = -1e\+30 must be finite and below 1e9"),
        ({"em_gain": 1e300}, r"em_gain = 1e\+300 must be ≥ 1 and < 1e6"),
        ({"offset_adu": None}, "offset_adu = None"),
        ({"offset_adu": np.zeros(3)}, r"offset_adu has shape \(3,\)"),
        ({"em_gain": np.ones((2, 2))}, r"em_gain has shape \(2, 2\); it must be one number"),
        ({"e_per_adu": np.array([[1.0, 0.0]])}, "e_per_adu = map must be > 0"),
    ],
)
def test_impossible_values_are_named_with_a_remedy(values, message):
    with pytest.raises(CameraError, match=message) as error:
        Camera(**values)
    assert "\n" not in str(error.value)
