"""When molecules switch: traces from the movie, posterior of the times, the closed form, the command."""

import json

import numpy as np
import pytest
import tifffile

from smlm_pb.analysis import sub_frame_times
from smlm_pb.analysis.switching import RatePrior, estimate_prior, ratio_times, switching_times
from smlm_pb.analysis.traces import Traces, measure_traces
from smlm_pb.camera import Camera
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, MovieError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.rendering import render_separable

CAMERA = Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=1.6)
SIGMA, FRAMES, SIZE = 1.1, 40, 48


def overlap(on, off, frames=FRAMES):
    k = np.arange(frames)
    return np.clip(np.minimum(off[:, None], k + 1) - np.maximum(on[:, None], k), 0, 1)


def movie_of(x, y, on, off, rate, seed=0, background=20.0):
    """A movie of molecules that are on from ``on`` to ``off``, and the linked table a perfect localizer would make."""
    rng = np.random.default_rng(seed)
    light = rate * overlap(on, off)
    frames = np.stack(
        [
            CAMERA.digitize(background + render_separable(x, y, light[:, k], np.full(len(x), SIGMA), (SIZE, SIZE)), rng)
            for k in range(FRAMES)
        ]
    )
    seen = light > 0.15 * rate
    first = seen.argmax(1)
    last = FRAMES - 1 - seen[:, ::-1].argmax(1)
    columns = {
        "frame": first,
        "x": x,
        "y": y,
        "photons": light.sum(1),
        "background": np.full(len(x), background),
        "on_frames": last - first + 1,
        "n_localizations": last - first + 1,
    }
    return frames, Localizations(columns, MovieInfo(FRAMES, SIZE, SIZE, 100.0))


def grid_of_molecules(seed=0):
    rng = np.random.default_rng(seed)
    y, x = (a.ravel().astype(float) for a in np.mgrid[6:SIZE:9, 6:SIZE:9])
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    on = rng.uniform(4, 24, x.size)
    return x, y, on, on + rng.uniform(2.5, 9, x.size)


def test_traces_are_the_light_of_each_frame_with_its_stated_noise():
    x, y, on, off = grid_of_molecules()
    movie, linked = movie_of(x, y, on, off, 1000.0)
    traces = measure_traces(linked, movie, camera=CAMERA, psf_sigma_px=SIGMA)
    true = 1000.0 * overlap(on, off)[traces.blink, traces.frame]
    pull = (traces.photons - true) / np.sqrt(traces.variance_dark + traces.variance_per_photon * true)
    assert abs(pull.mean()) < 0.15
    assert pull.std() == pytest.approx(1.0, abs=0.15)


def test_neighbours_do_not_leak_into_a_trace():
    x, y = np.array([20.0, 23.0]), np.array([20.0, 20.0])
    movie, linked = movie_of(x, y, np.array([5.3, 15.0]), np.array([25.7, 35.0]), 3000.0)
    traces = measure_traces(linked, movie, camera=CAMERA, psf_sigma_px=SIGMA)
    mine = (traces.blink == 0) & (traces.frame >= 8) & (traces.frame < 25)
    early, late = (traces.photons[mine & part].mean() for part in (traces.frame < 14, traces.frame >= 16))
    assert late / early == pytest.approx(1.0, abs=0.05)


def test_times_are_found_to_a_fraction_of_a_frame_and_their_errors_are_honest():
    error, pull, ratio = [], [], []
    for seed in range(3):
        x, y, on, off = grid_of_molecules(seed)
        movie, linked = movie_of(x, y, on, off, 1000.0, seed)
        found = sub_frame_times(linked, movie, camera=CAMERA, psf_sigma_px=SIGMA, exposure_ms=20.0)
        difference = np.concatenate((found["on_time"] - on, found["off_time"] - off))
        error.append(np.abs(difference))
        pull.append(difference / np.concatenate((found["sigma_on_time"], found["sigma_off_time"])))
        assert found["on_time_ms"] == pytest.approx(20 * found["on_time"], rel=1e-6)
        assert found["duration_ms"] == pytest.approx(20 * (found["off_time"] - found["on_time"]), rel=1e-4)
        traces = measure_traces(linked, movie, camera=CAMERA, psf_sigma_px=SIGMA)
        first = linked["frame"].astype(np.int64)
        on_ratio, off_ratio = ratio_times(traces, first, first + linked["on_frames"].astype(np.int64) - 1)
        ratio.append(np.abs(np.concatenate((on_ratio - on, off_ratio - off))))
    assert np.mean(np.concatenate(error)) < 0.08
    assert np.std(np.concatenate(pull)) == pytest.approx(1.0, abs=0.25)
    assert np.mean(np.concatenate(ratio)) < 0.2


def test_a_noiseless_trace_gives_its_times():
    on, off = np.array([4.30, 5.85, 6.10]), np.array([10.60, 8.20, 6.70])
    light = 2000.0 * overlap(on, off, 20)
    blink, frame = (a.ravel() for a in np.mgrid[:3, :20])
    dark, per_photon = np.full(60, 25.0), np.full(60, 0.01)
    traces = Traces(blink, frame, light.ravel(), dark, per_photon)
    first, last = np.floor(on).astype(int), np.floor(off).astype(int)
    prior = RatePrior(np.log(2000.0), 0.05, 0.0)
    times = switching_times(traces, first, last, n_frames=20, prior=prior)
    assert times.on[:2] == pytest.approx(on[:2], abs=0.03)
    assert times.off[:2] == pytest.approx(off[:2], abs=0.03)
    # Within one frame only the duration is known: light / rate.
    assert times.off[2] - times.on[2] == pytest.approx(0.6, abs=0.08)
    assert times.sigma_on[2] > 3 * times.sigma_on[0]
    assert times.rate[0] == pytest.approx(2000, rel=0.05)


def test_the_prior_tells_how_rates_differ_and_fluctuate():
    rng = np.random.default_rng(1)
    n, length = 400, 14
    rate = 1500 * rng.lognormal(0, 0.3, n)
    blink, frame = (a.ravel() for a in np.mgrid[:n, :length])
    light = rate[blink] * np.clip(1 + 0.1 * rng.normal(size=blink.size), 0, None)
    photons = light + np.sqrt(300 + light) * rng.normal(size=blink.size)
    traces = Traces(blink, frame, photons, np.full(blink.size, 300.0), np.ones(blink.size))
    prior = estimate_prior(traces, np.zeros(n, np.int64), np.full(n, length - 1))
    assert prior.log_rate == pytest.approx(np.log(1500), abs=0.05)
    assert prior.spread == pytest.approx(0.3, abs=0.05)
    assert prior.fluctuation == pytest.approx(0.1, abs=0.03)


def test_what_was_on_before_the_movie_has_no_known_beginning():
    x, y = np.array([15.0, 30.0]), np.array([15.0, 30.0])
    movie, linked = movie_of(x, y, np.array([-3.0, 5.5]), np.array([6.5, 60.0]), 2000.0)
    found = sub_frame_times(linked, movie, camera=CAMERA, psf_sigma_px=SIGMA)
    assert np.isinf(found["sigma_on_time"][0])
    assert np.isinf(found["sigma_off_time"][1])
    assert found["off_time"][0] == pytest.approx(6.5, abs=0.15)
    assert "on_time_ms" not in found


def test_wrong_input_is_refused_in_one_line():
    x, y, on, off = grid_of_molecules()
    movie, linked = movie_of(x, y, on, off, 1000.0)
    settings = {"camera": CAMERA, "psf_sigma_px": SIGMA}
    with pytest.raises(TableError, match="link it first"):
        sub_frame_times(linked.without_columns("on_frames"), movie, **settings)
    with pytest.raises(MovieError, match="the table was made from"):
        sub_frame_times(linked, movie[:3], **settings)
    with pytest.raises(ConfigurationError, match="exposure_ms"):
        sub_frame_times(linked, movie, exposure_ms=0, **settings)
    with pytest.raises(TableError, match="drift"):
        sub_frame_times(linked.with_provenance({"step": "drift"}), movie, **settings)
    empty = linked.select(np.zeros(len(linked), bool))
    assert len(sub_frame_times(empty, movie, **settings)["on_time"]) == 0


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y, on, off = grid_of_molecules()
    movie, _ = movie_of(x, y, on, off, 2000.0)
    tifffile.imwrite("movie.tif", movie)
    blink, frame = np.nonzero(overlap(on, off) > 0.15)
    rows = {"frame": frame, "x": x[blink], "y": y[blink], "photons": 2000.0 * overlap(on, off)[blink, frame]}
    rows |= {"background": np.full(len(frame), 20.0), "sigma_x": np.full(len(frame), 0.05)}
    rows |= {"sigma_y": np.full(len(frame), 0.05), "probability": np.full(len(frame), 0.99)}
    step = {
        "step": "localize",
        "conditions": {"camera": CAMERA.as_dict(), "psf_sigma_px": SIGMA, "frames": [0, FRAMES]},
    }
    Localizations(rows, MovieInfo(FRAMES, SIZE, SIZE, 100.0), [step]).save("locs.hdf5")
    command = ["link", "locs.hdf5", "--sub-frame-times", "movie.tif", "--exposure-ms", "30"]
    assert main(command) == 0
    linked = Localizations.load("locs_linked.hdf5")
    order = np.argsort(linked["x"])
    assert linked["on_time"][order] == pytest.approx(on[np.argsort(x)], abs=0.35)
    assert json.dumps(linked.provenance)
    assert main([*command, "--keep-rows", "--out", "other.hdf5"]) == 2
    assert "keep-rows" in capsys.readouterr().err
