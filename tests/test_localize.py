"""From a movie to a table in memory: right molecules, whatever the blocks; conditions found out and told."""

import itertools
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made_model import PHOTONS, make_model, make_movie

from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError, Cancelled, ConfigurationError, ModelError, MovieError
from smlm_pb.localization import LocalizationStopped, load_model, localize
from smlm_pb.localization import pipeline as pipelines
from smlm_pb.localization.pipeline import Plan, find_candidates, plan_work
from smlm_pb.localization.settings import Conditions, JobSettings
from smlm_pb.movies import open_movie

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "hand-made")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, "cpu")


@pytest.fixture(scope="module")
def movie():
    return make_movie(12)


@pytest.fixture(scope="module")
def found(model, movie):
    return localize(movie[0], model=model, pixel_size_nm=100, **CAMERA)


def network_of_random_weights(tmp_path, n_candidates=2):
    """A net with every part in use, for which only consistency can be tested."""
    import hashlib

    from safetensors.torch import save

    from smlm_pb.localization.model_card import ModelCard
    from smlm_pb.networks import NetworkSettings, build_network

    settings = NetworkSettings(channels=8, blocks=2, n_candidates=n_candidates, start_logit=-2.0)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = build_network(settings)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    content = save(network.state_dict())
    (tmp_path / "weights.safetensors").write_bytes(content)
    ModelCard(
        "random", "", settings.model_dump(), (0.8, 1.6), (200, 1e4), (0, 200), (0, 0.08),
        weights_sha256=hashlib.sha256(content).hexdigest(),
    ).save(tmp_path)  # fmt: skip
    return load_model(tmp_path, "cpu")


def with_warnings(movie, **options):
    """The table, and what was warned of."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        table = localize(movie, **options)
    return table, [str(warning.message) for warning in seen]


# -- the molecules -----------------------------------------------------------------------------------------


def test_the_molecules_are_where_they_are(found, movie):
    _, frame, x, y = movie
    hits = 0
    for f, x0, y0 in zip(frame, x, y, strict=True):
        here = found.frame == f
        distance = np.hypot(found.x[here] - x0, found.y[here] - y0)
        hits += distance.min() < 0.3
    assert hits >= 0.95 * len(frame)
    assert len(found) < 1.15 * len(frame)
    assert (np.diff(found.frame.astype(int)) >= 0).all()
    assert found.photons == pytest.approx(np.full(len(found), 1500), rel=1e-3)  # what the network always says


def test_no_half_pixel_no_exchanged_axes(found, movie):
    _, frame, x, y = movie
    errors = []
    for f, x0, y0 in zip(frame, x, y, strict=True):
        here = np.flatnonzero(found.frame == f)
        nearest = here[np.argmin(np.hypot(found.x[here] - x0, found.y[here] - y0))]
        errors.append((found.x[nearest] - x0, found.y[nearest] - y0))
    assert np.abs(np.median(errors, axis=0)).max() < 0.05


def test_the_table_knows_its_movie_and_its_history(found, model):
    assert (found.info.n_frames, found.info.height, found.info.width) == (12, 24, 32)
    assert found.info.pixel_size_nm == 100
    step = found.provenance[-1]
    assert step["step"] == "localize"
    assert step["model"]["sha256"] == model.card.weights_sha256
    assert len(step["movie"]["fingerprint"]) == 32
    assert step["conditions"]["camera"]["e_per_adu"] == 0.5
    assert step["conditions"]["origin"]["e_per_adu"] == "given"
    assert step["conditions"]["origin"]["background_e"] == "estimated"
    assert step["conditions"]["background_e"] == pytest.approx(20, abs=4)
    assert step["threshold"]["automatic"]
    assert 0 < step["threshold"]["jaccard"] <= 1
    assert step["result"]["molecules"] == len(found)
    assert step["result"]["density_per_px2"] == pytest.approx(len(found) / (12 * 24 * 32))


def test_only_molecules_at_or_above_the_threshold(model, movie):
    found = localize(movie[0], model=model, threshold=0.7, **CAMERA)
    assert found.probability.min() >= 0.7
    step = found.provenance[-1]["threshold"]
    assert (step["threshold"], step["automatic"]) == (0.7, False)
    assert step["molecules"] == len(found)
    assert step["precision"] == pytest.approx(found.probability.mean(), rel=1e-4)
    assert len(localize(movie[0], model=model, threshold=0.99, **CAMERA)) < len(found)


def test_a_threshold_below_the_floor_is_obeyed(model, movie):
    assert localize(movie[0], model=model, threshold=0.01, **CAMERA).probability.min() < 0.05


def test_frames_keep_their_numbers(model, movie, found):
    part = localize(movie[0], model=model, frames=(4, 9), threshold=0.3, **CAMERA)
    whole = localize(movie[0], model=model, threshold=0.3, **CAMERA)
    chosen = whole.select((whole.frame >= 4) & (whole.frame < 9))
    assert part.info.n_frames == 12
    np.testing.assert_array_equal(part.frame, chosen.frame)
    np.testing.assert_allclose(part.x, chosen.x, atol=1e-4)
    assert part.provenance[-1]["result"]["frames"] == 5


def test_a_path_an_array_and_a_movie_give_the_same(model, movie, tmp_path):
    import tifffile

    path = tmp_path / "beads.tif"
    tifffile.imwrite(path, movie[0])
    opened = open_movie(path)
    tables = [localize(source, model=model, **CAMERA) for source in (path, str(path), movie[0], opened)]
    for table in tables[1:]:
        np.testing.assert_array_equal(table.x, tables[0].x)
    assert len({table.provenance[-1]["movie"]["fingerprint"] for table in tables}) == 1
    assert opened.read(0, 1).shape == (1, 24, 32)  # a movie that was given stays open


def test_electron_multiplication_counts_twice(model, movie):
    """The network sees electrons divided by the excess noise; photons and background are those of the camera."""
    plain = localize(movie[0], model=model, threshold=0.3, **CAMERA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its noise is not that of such a camera
        multiplied = localize(
            movie[0], model=model, threshold=0.3, **{**CAMERA, "e_per_adu": 0.5 * 2 * 100}, em_gain=100
        )
    np.testing.assert_allclose(multiplied.x, plain.x, atol=1e-3)
    np.testing.assert_allclose(multiplied.photons, 2 * plain.photons, rtol=1e-3)
    np.testing.assert_allclose(multiplied.background, 2 * plain.background, rtol=1e-3)


def test_a_camera_with_maps(model, movie):
    offset = np.full((24, 32), 100.0)
    offset[:, ::2] += 7
    shifted = movie[0] + (offset - 100).astype(np.uint16)
    plain = localize(movie[0], model=model, threshold=0.3, **CAMERA)
    mapped = localize(
        shifted, model=model, threshold=0.3, camera=Camera(offset_adu=offset, e_per_adu=0.5), psf_sigma_px=1.1
    )
    np.testing.assert_allclose(mapped.x, plain.x, atol=1e-4)


# -- blocks, batches, tiles --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_candidates", [1, 2])
def test_the_result_does_not_depend_on_how_the_work_is_cut(tmp_path, n_candidates):
    model = network_of_random_weights(tmp_path, n_candidates)
    movie = open_movie(make_movie(7, (41, 53), per_frame=4)[0])
    camera = Camera(offset_adu=100, e_per_adu=0.5)

    def run(plan):
        with find_candidates(
            movie, model, camera=camera, psf_sigma_px=1.1, frames=(1, 7), floor=0.1, plan=plan
        ) as blocks:
            parts = list(blocks)
        assert [part.start for part in parts] == list(range(1, 7, plan.block_frames))
        return np.concatenate([part.candidates.rows for part in parts]), sum(
            part.candidates.expected_unlisted for part in parts
        )

    reference, mass = run(Plan(block_frames=6, batch_frames=6, tile_px=64))
    assert len(reference) > 1000
    for block_frames, batch_frames, tile_px in itertools.product((1, 4), (1, 3), (16, 30)):
        rows, other_mass = run(Plan(block_frames, batch_frames, tile_px))
        # A probability within rounding of the floor may fall on either side.
        unsure = np.abs(reference["probability"] - 0.1).min() < 1e-6
        assert len(rows) == len(reference) or unsure
        if len(rows) == len(reference):
            np.testing.assert_array_equal(rows["frame"], reference["frame"])
            for name in ("x", "y", "sigma_x", "sigma_y", "probability"):
                np.testing.assert_allclose(rows[name], reference[name], atol=1e-4, err_msg=name)
            np.testing.assert_allclose(rows["photons"], reference["photons"], rtol=1e-4)
        assert other_mass == pytest.approx(mass, rel=1e-5)


def test_the_plan_bounds_memory_and_balances_tiles():
    cpu = torch.device("cpu")
    small, large = plan_work(64, 64, cpu), plan_work(2048, 1000, cpu)
    assert small.tile_px == 64
    assert small.batch_frames * 64 * 64 <= 1 << 15
    assert (large.batch_frames, large.block_frames) == (1, 1)
    tiles = -(-2048 // large.tile_px)
    assert tiles * large.tile_px - 2048 < tiles  # the last tile is as wide as the others
    assert plan_work(2048, 2048, torch.device("cuda")).tile_px > large.tile_px


def test_a_movie_is_never_read_as_a_whole(model, movie, monkeypatch):
    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 3)
    opened = open_movie(np.concatenate([movie[0]] * 5))
    longest = []
    read = opened._read

    def watched(start, stop):
        longest.append(stop - start)
        return read(start, stop)

    monkeypatch.setattr(opened, "_read", watched)
    with find_candidates(opened, model, camera=Camera(), psf_sigma_px=1.1, frames=(0, 60), floor=0.05) as blocks:
        assert sum(1 for _ in blocks) == 20
    assert max(longest) == 3


def test_reading_does_not_run_far_ahead(model, movie, monkeypatch):
    import time

    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32)
    opened = open_movie(np.concatenate([movie[0]] * 5))
    starts = []
    read = opened._read
    monkeypatch.setattr(opened, "_read", lambda start, stop: (starts.append(start), read(start, stop))[1])
    with find_candidates(opened, model, camera=Camera(), psf_sigma_px=1.1, frames=(0, 60), floor=0.05) as blocks:
        next(blocks)
        time.sleep(0.3)
        assert len(starts) < 12


@pytest.mark.parametrize("size", [(5, 5), (7, 64), (33, 6), (25, 31)])
def test_frames_of_any_size_work(model, size):
    rng = np.random.default_rng(0)
    noise = rng.poisson(20, (3, *size)).astype(np.uint16) + 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = localize(noise, model=model, **CAMERA)
    assert (table.info.height, table.info.width) == size


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_values_of_any_type_give_the_same(model, movie, dtype):
    raw = np.minimum(movie[0][:3] // 4, 250)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 8 bits
        settings = {"offset_adu": 25.0, "e_per_adu": 2.0, "psf_sigma_px": 1.1, "threshold": 0.3}
        reference = localize(raw.astype(np.uint16), model=model, **settings)
        table = localize(raw.astype(dtype), model=model, **settings)
    np.testing.assert_allclose(table.x, reference.x, atol=1e-4)


# -- while it runs -----------------------------------------------------------------------------------------


def test_blocks_and_progress_are_reported_in_order(model, movie, monkeypatch):
    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 5)
    blocks, progress = [], []
    table = localize(
        movie[0],
        model=model,
        on_block=blocks.append,
        on_progress=lambda *at: progress.append(at),
        **CAMERA,
    )
    assert progress == [(5, 12), (10, 12), (12, 12)]
    assert [(block.start, block.stop) for block in blocks] == [(0, 5), (5, 10), (10, 12)]
    assert blocks[-1].threshold == table.provenance[-1]["threshold"]["threshold"]
    everything = np.concatenate([block.candidates.x for block in blocks])
    assert len(everything) >= len(table)
    final = np.concatenate(
        [block.molecules.x for block in (b._replace(threshold=blocks[-1].threshold) for b in blocks)]
    )
    np.testing.assert_array_equal(final, table.x)


def test_stopping_keeps_what_was_found(model, movie, monkeypatch):
    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 2)
    blocks, handed = [], []
    with pytest.raises(LocalizationStopped, match="Stopped after frame 5") as stopped:
        localize(
            movie[0],
            model=model,
            on_block=blocks.append,
            should_stop=lambda: len(blocks) == 3,
            on_stop=handed.append,
            **CAMERA,
        )
    assert isinstance(stopped.value, Cancelled)
    finished = stopped.value.finished
    assert finished is handed[0]
    assert finished.frame.max() <= 5
    assert len(finished) > 10
    assert finished.provenance[-1]["result"]["frames"] == 6


def test_stopping_does_not_wait_for_the_block_in_hand(model, movie, monkeypatch):
    """The network is held until the molecules found so far have been handed over."""
    import threading

    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 2)
    blocks, handed, handed_over = [], [], threading.Event()
    real = movie[0]

    class Slow:
        shape, dtype = real.shape, real.dtype

        def __getitem__(self, index):
            if blocks:
                assert handed_over.wait(60)
            return real[index]

    with pytest.raises(LocalizationStopped):
        localize(
            Slow(),
            model=model,
            on_block=blocks.append,
            should_stop=lambda: bool(blocks),
            on_stop=lambda table: (handed.append(table), handed_over.set()),
            **CAMERA,
        )
    assert len(handed) == 1


def test_stopping_the_refinement_keeps_what_the_network_found(model, movie, monkeypatch):
    """The refinement is held until the molecules have been handed over."""
    import threading

    from smlm_pb.localization import refining

    begun, handed_over, handed = threading.Event(), threading.Event(), []

    def held(self, locs):
        begun.set()
        assert handed_over.wait(60)
        return locs

    monkeypatch.setattr(refining.Refining, "_refine", held)
    with pytest.raises(LocalizationStopped, match="before the refinement was done") as stopped:
        localize(
            movie[0],
            model=model,
            refine="on",
            should_stop=begun.is_set,
            on_stop=lambda table: (handed.append(table), handed_over.set()),
            **CAMERA,
        )
    (finished,) = handed
    assert finished is stopped.value.finished
    plain = localize(movie[0], model=model, refine="off", **CAMERA)
    assert finished.provenance[-1]["refinement"] == {"mode": "off"}
    for name in plain.column_names:
        np.testing.assert_array_equal(finished[name], plain[name])


def test_stopping_before_the_first_block_gives_an_empty_table(model, movie):
    with pytest.raises(LocalizationStopped, match="before the first frame") as stopped:
        localize(movie[0], model=model, should_stop=lambda: True, **CAMERA)
    assert len(stopped.value.finished) == 0


def test_a_callback_that_fails_ends_the_run_and_its_threads(model, movie):
    import threading

    def fail(*_):
        raise RuntimeError("the window was closed")

    with pytest.raises(RuntimeError, match="window"):
        localize(movie[0], model=model, on_progress=fail, **CAMERA)
    assert not [thread for thread in threading.enumerate() if "smlm-pb" in thread.name]


def test_nan_in_a_late_frame_names_the_frame(model, movie):
    late = np.concatenate([movie[0]] * 40).astype(np.float32)
    late[333, 5, 5] = np.nan
    with pytest.raises(MovieError, match="frame 333 holds 1 values that are NaN"):
        localize(late, model=model, **CAMERA)


# -- conditions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_movie():
    """Long and bright enough to tell the camera."""
    return make_movie(150, (48, 48), per_frame=8, seed=3)[0]


def test_what_is_not_given_is_estimated_and_told(model, long_movie):
    table = localize(long_movie, model=model)
    conditions = table.provenance[-1]["conditions"]
    assert conditions["camera"]["e_per_adu"] == pytest.approx(0.5, rel=0.15)
    assert conditions["camera"]["offset_adu"] == pytest.approx(100, abs=8)
    assert conditions["psf_sigma_px"] == pytest.approx(1.1, rel=0.05)
    origin = conditions["origin"]
    assert {origin[name] for name in ("offset_adu", "e_per_adu", "psf_sigma_px")} == {"estimated"}
    assert origin["em_gain"] == "assumed"
    assert conditions["pixel_size_nm"] is None
    assert conditions["camera"]["estimated"] == ["offset_adu", "e_per_adu"]


def test_estimates_are_as_good_as_the_truth(model, long_movie):
    given = localize(long_movie, model=model, threshold=0.3, **CAMERA)
    estimated = localize(long_movie, model=model, threshold=0.3)
    assert abs(len(given) - len(estimated)) < 0.03 * len(given)


def test_the_pixel_size_of_the_file_is_used_unless_given(model, movie, tmp_path):
    import tifffile

    path = tmp_path / "beads.tif"
    tifffile.imwrite(path, movie[0], imagej=True, resolution=(1 / 0.108, 1 / 0.108), metadata={"unit": "um"})
    table = localize(path, model=model, **CAMERA)
    assert table.info.pixel_size_nm == pytest.approx(108, rel=1e-3)
    assert table.provenance[-1]["conditions"]["origin"]["pixel_size_nm"] == "from the file"
    assert localize(path, model=model, pixel_size_nm=160, **CAMERA).info.pixel_size_nm == 160


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"psf_sigma_px": 3.0}, r"PSF of 3 px \(given\) lies outside the 0.8 to 1.6 px of model 'hand-made'"),
        ({"offset_adu": 0.0, "e_per_adu": 3.0}, "background of .* is beyond the 200 e⁻ of model"),
        ({"e_per_adu": 5.0}, "e_per_adu near .* would fit"),
        ({"frames": (5, 100)}, "frames up to 100 were asked for, it has 12"),
        ({"pixel_size_nm": 0.1}, r"pixel_size_nm = 0\.1 was given, .*in the sample \(0\.1 µm is 100\)"),
        ({"pixel_size_nm": 6500}, "pixel_size_nm = 6500 was given"),
    ],
)
def test_a_movie_outside_the_range_is_warned_of(model, movie, values, message):
    table, texts = with_warnings(movie[0], model=model, **{**CAMERA, **values})
    assert table.provenance[-1]["warnings"] == texts
    assert sum(bool(re.search(message, text)) for text in texts) == 1, texts
    assert not any("\n" in text for text in texts)


def test_the_network_is_told_no_width_beyond_its_range(model, movie):
    with pytest.warns(UserWarning, match="which is told 1.6 px"):
        table = localize(movie[0], model=model, **{**CAMERA, "psf_sigma_px": 3.0})
    assert table.provenance[-1]["conditions"]["network_psf_sigma_px"] == 1.6
    assert table.provenance[-1]["conditions"]["psf_sigma_px"] == 3.0


def test_more_molecules_and_more_light_than_trained_for_are_warned_of(tmp_path, movie):
    narrow = make_model(tmp_path / "narrow", name="narrow", density_per_px2=(0, 0.001), photons=(3000, 5000))
    texts = " ".join(with_warnings(movie[0], model=narrow, **CAMERA)[1])
    assert "molecules per pixel and frame are more than model 'narrow'" in texts
    assert "molecules of 1.5e+03 e⁻ (median) lie outside the 3000 to 5000 e⁻" in texts


def test_saturation_is_warned_of(model, movie):
    clipped = np.minimum(movie[0], 255)
    with pytest.warns(UserWarning, match="saturated at 255 ADU"):
        localize(clipped, model=model, **CAMERA)


def test_without_any_light_the_gain_must_be_given(model):
    flat = np.random.default_rng(0).poisson(30, (6, 20, 20)).astype(np.uint16) + 100
    with pytest.raises(CameraError, match="offset_adu"):
        localize(flat, model=model)


def test_an_estimate_that_the_pixels_contradict_is_refused(model, long_movie, monkeypatch):
    """Bright single pixels, as of cosmic rays, can lead the estimate far astray: then nothing would be found."""
    from smlm_pb.localization import estimate

    good = estimate.estimate_camera(long_movie)
    monkeypatch.setattr(estimate, "estimate_camera", lambda *_, **__: replace(good, offset_adu=55_000.0))
    with pytest.raises(CameraError, match=r"offset 55000 ADU is above 100 % of the pixels"):
        localize(long_movie, model=model)


def test_copies_of_one_frame_give_the_same_molecules(model, movie):
    """They hold no noise from frame to frame, which estimates must survive."""
    table, _ = with_warnings(np.repeat(movie[0][:1], 5, axis=0), model=model, **{**CAMERA, "psf_sigma_px": None})
    assert len(set(np.bincount(table.frame, minlength=5))) == 1
    assert table.provenance[-1]["conditions"]["origin"]["psf_sigma_px"] == "assumed"


def test_blank_frames_give_an_empty_table(model):
    flat = np.random.default_rng(0).poisson(30, (60, 32, 32)).astype(np.uint16) + 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = localize(flat, model=model, offset_adu=100, e_per_adu=1.0)
    assert len(table) == 0
    assert table.provenance[-1]["result"]["median_sigma_px"] is None
    assert table.provenance[-1]["conditions"]["origin"]["psf_sigma_px"] == "assumed"


# -- wrong values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"threshold": 1.5}, ConfigurationError, "between 0 and 1"),
        ({"floor": 0}, ConfigurationError, "floor = 0 must lie between 0 and 1"),
        ({"psf_sigma_px": -1}, ConfigurationError, "psf_sigma_px = -1 must be a number > 0"),
        ({"pixel_size_nm": "100nm"}, ConfigurationError, "pixel_size_nm = '100nm'"),
        ({"frames": (50, 60)}, ConfigurationError, "has 12 frames"),
        ({"frames": (5, 5)}, ConfigurationError, "0 ≤ first"),
        ({"frames": 5}, ConfigurationError, r"frames = 5 must be \(first"),
        ({"frames": (0.5, 2.7)}, ConfigurationError, r"frames = \(0.5, 2.7\) must be \(first"),
        ({"threshold": True}, ConfigurationError, "threshold = True must lie between 0 and 1"),
        ({"offset_adu": 60_000.0}, CameraError, "above 100 % of the pixels"),
        ({"em_gain": 0.2}, CameraError, "em_gain = 0.2 must be ≥ 1"),
        ({"e_per_adu": -1.0}, CameraError, "e_per_adu = -1.0 must be > 0"),
        ({"camera": "EMCCD"}, ConfigurationError, "give a smlm_pb.Camera"),
        ({"device": "tpu"}, ConfigurationError, "Device 'tpu' is unknown"),
        ({"device": None}, ConfigurationError, "Device 'None' is unknown"),
        ({"model": "defualt"}, ModelError, "Unknown model 'defualt'"),
        ({"model": None}, ModelError, "A NoneType was given as a model"),
    ],
)
def test_wrong_values_are_refused_with_what_to_do(movie, folder, values, error, message):
    with pytest.raises(error, match=message) as refused:
        localize(movie[0], **{"model": folder, **CAMERA, **values})
    assert "\n" not in str(refused.value)


def test_conditions_survive_the_work_file_to_the_last_digit():
    import json

    settings = JobSettings(camera=Camera(offset_adu=np.full((4, 4), 99.0), estimated=("e_per_adu",)), em_gain=3.0)
    conditions = Conditions(
        Camera(offset_adu=np.full((4, 4), 99.0), e_per_adu=0.1 + 0.2, em_gain=3.0, estimated=("e_per_adu",)),
        107.3, 1.1 / 3, 20 / 7, (3, 9), {"e_per_adu": "estimated"}, ("a warning",), 4.45,
    )  # fmt: skip
    again = Conditions.restore(json.loads(json.dumps(conditions.as_dict())), settings)
    assert again.as_dict() == conditions.as_dict()
    np.testing.assert_array_equal(again.camera.offset_adu, conditions.camera.offset_adu)
    assert again.frames == (3, 9)


def test_settings_of_different_cameras_differ():
    a, b = np.full((4, 4), 100.0), np.full((4, 4), 100.0)
    b[1, 1] = 101
    one, two = (JobSettings(camera=Camera(offset_adu=offset)).as_dict() for offset in (a, b))
    assert one != two
    assert one == JobSettings(camera=Camera(offset_adu=a.copy())).as_dict()


def test_the_hand_made_model_is_made_for_these_photons():
    assert PHOTONS == 2500
