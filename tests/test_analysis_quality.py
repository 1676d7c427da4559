"""Precision and resolution without truth, and the signs of a biased localizer."""

import json

import numpy as np
import pytest

from smlm_pb.analysis.precision import nena
from smlm_pb.analysis.quality_figure import quality_figure
from smlm_pb.analysis.quality_report import quality, sub_pixel_histogram
from smlm_pb.analysis.resolution import block_of_frames, frc, ring_correlation
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.tables import simulate_localizations


@pytest.mark.parametrize(
    ("structure", "sigma_nm", "n"), [("uniform", 4, 6_000), ("filaments", 10, 20_000), ("clusters", 20, 40_000)]
)
def test_nena_finds_the_precision(structure, sigma_nm, n):
    locs = simulate_localizations(structure, n_localizations=n, sigma_nm=sigma_nm, n_frames=3000).locs

    found = nena(locs)

    assert found.sigma_nm == pytest.approx(sigma_nm, rel=0.05)
    assert abs(found.sigma_nm - sigma_nm) < 4 * found.standard_error_nm
    assert found.pull == pytest.approx(1, abs=0.05)
    assert found.staying_fraction == pytest.approx(0.5, abs=0.05)


def test_nena_is_not_misled_by_crowding():
    locs = simulate_localizations("filaments", n_localizations=100_000, sigma_nm=12, n_frames=1000, seed=1).locs

    assert nena(locs).sigma_nm == pytest.approx(12, rel=0.05)


def test_nena_exposes_wrong_precisions_even_when_they_differ_from_molecule_to_molecule():
    locs = simulate_localizations("uniform", n_localizations=20_000, sigma_nm=10, sigma_spread=0.4, seed=2).locs
    boastful = locs.with_columns(sigma_x=locs.sigma_x / 2, sigma_y=locs.sigma_y / 2)

    assert nena(boastful).pull == pytest.approx(2, rel=0.05)
    assert nena(locs.without_columns("sigma_x", "sigma_y")).pull is None


def test_nena_judges_reported_precisions_by_molecules_that_stand_alone():
    """Errors that neighbours cause are the same in the next frame: distances do not show them."""
    alone = simulate_localizations("uniform", n_localizations=20_000, sigma_nm=10, n_frames=20_000, seed=2).locs
    beside = alone.with_columns(x=alone["x"] + 1.0)
    modest = {name: 3 * alone[name] for name in ("sigma_x", "sigma_y")}
    crowd = Localizations.concatenate([alone.with_columns(**modest), beside.with_columns(**modest)])
    shifted = alone.with_columns(frame=alone["frame"] + np.uint32(20_000))
    both = Localizations(
        {name: np.concatenate((crowd[name], shifted[name])) for name in ("frame", "x", "y", "sigma_x", "sigma_y")},
        MovieInfo(40_000, alone.info.height, alone.info.width, pixel_size_nm=alone.info.pixel_size_nm),
    )

    assert nena(alone).pull == pytest.approx(1, abs=0.05)
    assert nena(both).pull == pytest.approx(1, abs=0.05)
    assert nena(crowd).pull is None
    assert not any("reported precisions" in note for note in quality(crowd, n_repeats=1).notes)


def test_nena_curve_describes_what_was_found():
    found = nena(simulate_localizations("uniform", n_localizations=20_000, seed=3).locs)

    assert np.abs(np.cumsum(found.observed) - np.cumsum(found.fitted)).max() < 0.01
    mean = (found.distance_nm * found.observed).sum() / found.observed.sum()
    assert mean == pytest.approx(found.sigma_nm * np.sqrt(np.pi), rel=0.2)


def test_nena_refuses_with_a_reason():
    once = simulate_localizations("uniform", n_localizations=3000, on_frames=1.0).locs
    with pytest.raises(TableError, match="stay on for two frames"):
        nena(once)
    with pytest.raises(TableError, match="some hundred"):
        nena(once.select(slice(0, 20)))
    with pytest.raises(TableError, match="at least 20 frames"):
        nena(once.with_columns(frame=np.arange(len(once)) % 5))
    with pytest.raises(TableError, match="give pixel_size_nm"):
        nena(once.with_info(MovieInfo(5000, 64, 64)))
    with pytest.raises(ConfigurationError, match="max_distance_nm"):
        nena(once, max_distance_nm=0)


def reference_resolution(locs, n_blocks, pixel_nm, seed):
    """Fourier ring correlation written out plainly: full FFT, a loop over rings, a moving average."""
    rng = np.random.default_rng(seed)
    length = -(-(int(locs.frame.max()) + 1) // n_blocks)
    first = rng.permutation(n_blocks) < n_blocks // 2
    chosen = first[locs.frame // length]
    extent = locs.info.width * locs.info.pixel_size_nm
    n = int(extent / pixel_nm)
    edges = np.linspace(-50, extent - 50, n + 1)
    ramp = np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / (n / 8), 0, 1)
    window = np.outer(np.sin(ramp * np.pi / 2) ** 2, np.sin(ramp * np.pi / 2) ** 2)
    spectra = []
    for half in (chosen, ~chosen):
        image = np.histogram2d(locs.y[half] * 100, locs.x[half] * 100, (edges, edges))[0]
        spectra.append(np.fft.fftshift(np.fft.fft2(image * window)))
    radius = np.hypot(*np.meshgrid(*(np.arange(n) - n // 2,) * 2))
    correlation = []
    for r in range(1, n // 2):
        ring = (radius >= r - 0.5) & (radius < r + 0.5)
        a, b = spectra[0][ring], spectra[1][ring]
        correlation.append((a * b.conj()).sum().real / np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum()))
    smooth = np.convolve(correlation, np.ones(9) / 9, "valid")
    crossing = int(np.flatnonzero(smooth < 1 / 7)[0])
    return extent / (crossing + 5)


@pytest.mark.parametrize(("structure", "sigma_nm"), [("filaments", 12), ("clusters", 20)])
def test_frc_agrees_with_an_independent_reference(structure, sigma_nm):
    locs = simulate_localizations(structure, n_localizations=30_000, sigma_nm=sigma_nm, seed=4, n_frames=4000).locs

    found = frc(locs, pixel_size_nm=sigma_nm / 2, n_repeats=3)

    references = [reference_resolution(locs, 50, sigma_nm / 2, seed) for seed in (11, 12, 13)]
    assert found.resolution_nm == pytest.approx(np.mean(references), rel=0.1)
    assert found.spread_nm < 0.1 * found.resolution_nm
    assert found.note == ""


def test_frc_splits_by_blocks_so_that_one_blink_cannot_agree_with_itself():
    locs = simulate_localizations("uniform", n_localizations=30_000, on_frames=12.0, blinks=1.0, seed=5).locs

    by_blocks = frc(locs, n_blocks=20, pixel_size_nm=10)
    by_frames = frc(locs, n_blocks=5000, pixel_size_nm=10)

    assert by_frames.resolution_nm < 60
    assert by_blocks.resolution_nm > 3 * by_frames.resolution_nm


def test_worse_precision_means_worse_resolution():
    sharp, dull = (
        frc(simulate_localizations(sigma_nm=s, n_localizations=20_000, seed=6).locs, pixel_size_nm=5, n_repeats=2)
        for s in (8, 24)
    )
    assert dull.resolution_nm > 2 * sharp.resolution_nm


def test_frc_that_never_falls_says_so():
    locs = simulate_localizations(n_localizations=20_000, sigma_nm=5, seed=7).locs

    found = frc(locs, pixel_size_nm=40)

    assert np.isnan(found.resolution_nm)
    assert "smaller pixel_size_nm" in found.note
    assert found.as_dict()["resolution_nm"] is None


def test_ring_sums_equal_the_full_transform():
    rng = np.random.default_rng(8)
    a, b = rng.random((2, 30, 44))

    frequency, sums = ring_correlation(a, b, 10.0)

    fa, fb = np.fft.fft2(a), np.fft.fft2(b)
    ring = np.rint(np.hypot(np.fft.fftfreq(30)[:, None], np.fft.fftfreq(44)[None]) * 44).astype(int)
    for k in range(1, 23):
        assert sums[0, k - 1] == pytest.approx((fa * fb.conj()).real[ring == k].sum(), rel=1e-4, abs=1e-3)
        assert sums[1, k - 1] == pytest.approx((np.abs(fa) ** 2)[ring == k].sum(), rel=1e-4)
    assert frequency[-1] == pytest.approx(0.05)


def test_frc_refuses_with_a_reason():
    locs = simulate_localizations(n_localizations=3000).locs
    with pytest.raises(TableError, match="at least 1000"):
        frc(locs.select(slice(0, 50)))
    with pytest.raises(TableError, match="two frames"):
        frc(locs.with_columns(frame=0))
    with pytest.raises(ConfigurationError, match="n_blocks"):
        frc(locs, n_blocks=1)
    with pytest.raises(ConfigurationError, match="above 0"):
        frc(locs, pixel_size_nm=-1)


def test_blocks_are_consecutive_and_equally_long():
    assert block_of_frames(np.array([10, 11, 12, 13, 14, 15, 19]), 5).tolist() == [0, 0, 1, 1, 2, 2, 4]


def test_even_positions_are_not_suspicious_and_gathered_ones_are():
    rng = np.random.default_rng(9)
    across = rng.uniform(0, 50, 20_000)
    even = sub_pixel_histogram(rng.uniform(0, 50, 20_000), across_px=across)
    at_centres = sub_pixel_histogram(rng.integers(0, 50, 20_000) + rng.normal(0, 0.25, 20_000), across_px=across)
    at_edges = sub_pixel_histogram(rng.integers(0, 50, 20_000) + 0.5 + rng.normal(0, 0.25, 20_000), across_px=across)

    assert not even.is_suspicious
    assert even.fraction == pytest.approx(np.full(20, 0.05), abs=0.01)
    assert at_centres.is_suspicious
    assert at_centres.attraction == pytest.approx(np.exp(-2 * (np.pi * 0.25) ** 2), abs=0.02)
    assert at_edges.attraction == pytest.approx(-at_centres.attraction, abs=0.03)


def test_many_localizations_of_few_places_are_no_sign_of_attraction():
    rng = np.random.default_rng(11)
    for n_places in (5, 60):
        sites = rng.uniform(0, 30, (n_places, 2))[rng.integers(0, n_places, 20_000)]
        x, y = (sites + rng.normal(0, 0.02, sites.shape)).T
        assert not sub_pixel_histogram(x, across_px=y).is_suspicious


@pytest.fixture(scope="module")
def locs():
    return simulate_localizations(n_localizations=8000, n_frames=1000, seed=10).locs


def test_quality_gathers_everything(locs):
    found = quality(locs, n_repeats=2)

    assert found.nena.sigma_nm == pytest.approx(10, rel=0.1)
    assert 20 < found.frc.resolution_nm < 80
    assert found.per_frame == pytest.approx(len(locs) / 1000)
    assert found.per_block.sum() * 20 == pytest.approx(len(locs))
    assert found.spreads["sigma_nm"][2] == pytest.approx(10, rel=1e-3)
    assert found.notes == ()
    assert "precision (NeNA)" in str(found)
    json.dumps(found.as_dict(), allow_nan=False)


def test_rates_are_those_of_the_frames_that_were_localized(locs):
    """After ``--frames 100:200`` of a long movie, not of all its frames."""
    part = locs.select((locs.frame >= 100) & (locs.frame < 200))
    part = part.with_provenance({"step": "localize", "conditions": {"frames": [100, 200]}})

    found = quality(part, n_blocks=10)

    assert (found.n_frames, found.first_frame, found.per_frame) == (100, 100, len(part) / 100)
    assert found.per_block.tolist() == (np.bincount(part.frame // 10)[10:] / 10).tolist()
    assert quality_figure(part, found).axes[2].lines[0].get_xdata().tolist() == list(range(105, 200, 10))


def test_quality_notes_what_is_wrong(locs):
    drawn_in = locs.with_columns(x=np.rint(locs.x) + (locs.x - np.rint(locs.x)) * 0.5)
    boastful = locs.with_columns(sigma_x=locs.sigma_x / 3, sigma_y=locs.sigma_y / 3)

    assert "along x gather at the centres" in " ".join(quality(drawn_in, n_repeats=1).notes)
    assert "reported precisions are too small" in " ".join(quality(boastful, n_repeats=1).notes)


def test_quality_of_a_poor_table_gives_reasons_instead_of_failing():
    info = MovieInfo(10, 32, 32, 100.0)
    few = Localizations({"frame": [0, 1], "x": [1.0, 2.0], "y": [3.0, 4.0]}, info)

    found = quality(few)

    assert found.nena is None
    assert found.frc is None
    assert set(found.reasons) == {"NeNA", "FRC"}
    quality_figure(few, found)
    with pytest.raises(TableError, match="no molecules"):
        quality(Localizations.empty(info))


def test_command_prints_and_draws(locs, tmp_path, capsys):
    path, figure = tmp_path / "movie_locs.hdf5", tmp_path / "quality.png"
    locs.save(path)

    assert main(["quality", str(path), "--figure", str(figure), "--repeats", "1"]) == 0
    assert "resolution (FRC" in capsys.readouterr().out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["quality", str(path), "--json", "--repeats", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["n_localizations"] == len(locs)
    assert main(["quality", str(path), "--figure", str(figure)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["quality", str(path), "--figure", "a.bmp"]) == 2
    assert "unknown kind of figure" in capsys.readouterr().err
