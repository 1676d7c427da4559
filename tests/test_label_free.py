"""Label-free training: the PSF is found, what cannot be known is pinned, runs continue, bad movies are refused."""

import importlib
import json
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.camera import Camera
from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, OutputError
from smlm_pb.localization import load_model
from smlm_pb.pair_density import FARTHEST_PX, NEAREST_PX
from smlm_pb.population import CROWDING_RANGE
from smlm_pb.simulation import Recipe, simulate
from smlm_pb.simulation.sampled_psf import SampledPsf, read_psf
from smlm_pb.training import Experiment
from smlm_pb.training.label_free import LabelFreeSettings, learn_unlabelled
from smlm_pb.training.label_free.crops import Crops, population_of
from smlm_pb.training.label_free.kernel import Kernel
from smlm_pb.training.label_free.molecules import Frames, Molecules, Reconstruction, log_likelihood
from smlm_pb.training.label_free.proposals import better, evidence, merged, peaks, strongest
from smlm_pb.training.label_free.reconstruct import Limits, begin, deviance_per_px, explain, run_round
from smlm_pb.training.label_free.steps import improve_kernel, move_molecules, with_kernel

CAMERA = Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=1.0)
TINY = {"steps": 6, "rounds": 3, "batch_size": 2, "channels": 4, "blocks": 1, "calibration_scenes": 16}
CONDITIONS = {"camera": CAMERA, "psf_sigma_px": 1.3}


def make_movie(psf, frames=24, per_um2=0.6, seed=3, photons=3000, size=40):
    recipe = Recipe.from_dict(
        {
            "frames": frames,
            "height": size,
            "width": size,
            "psf": psf,
            "molecules": {"density_per_um2": per_um2, "photons": photons},
            "background": {"photons_per_px": 20},
            "camera": {"offset_adu": 100, "e_per_adu": 0.5, "read_noise_e": 1.0},
        }
    )
    return simulate(recipe, seed=seed)


def as_frames(movie):
    electrons = torch.from_numpy(CAMERA.to_electrons(movie))
    return Frames(electrons, torch.ones(electrons.shape[1:]))


def random_kernel(seed, side=15, per_px=2):
    values = torch.rand((side, side), generator=torch.Generator().manual_seed(seed)) ** 6
    return Kernel(values, per_px)


@pytest.fixture(scope="module")
def movie_and_truth():
    return make_movie({"sigma_px": 1.1})


@pytest.fixture(scope="module")
def explained(movie_and_truth):
    """Three rounds without a detector, from a width that is wrong by a fifth."""
    movie, _ = movie_and_truth
    frames = as_frames(movie)
    chunks = [(frames, begin(frames, Kernel.gaussian(1.35, radius_px=5, samples_per_px=2)))]
    for separation in (4.0, 2.5, 2.0, 2.0):
        chunks = run_round(chunks, Limits(most=60, separation_px=separation))
    return chunks


# --- what cannot be known is pinned -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), y=st.floats(-0.5, 0.5), x=st.floats(-0.5, 0.5), scale=st.floats(1e-3, 1e3))
def test_light_is_never_negative_and_adds_up_to_one_wherever_the_molecule_is(seed, y, x, scale):
    coefficients = random_kernel(seed).coefficients
    kernel = Kernel(scale * (coefficients - 0.1 * coefficients.max()), 2)
    axis = torch.arange(-12.0, 13.0, dtype=torch.float64)
    image = kernel.image(axis - y, axis - x)
    assert float(image.min()) >= 0
    assert float(image.sum()) == pytest.approx(1, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), y=st.floats(-0.5, 0.5), x=st.floats(-0.5, 0.5))
def test_position_is_the_centre_of_mass_of_the_light(seed, y, x):
    fine = torch.arange(-96, 97, dtype=torch.float64) / 8
    image = random_kernel(seed).image(fine - y, fine - x)
    assert float(image.sum(1) @ fine / image.sum()) == pytest.approx(y, abs=1e-4)
    assert float(image.sum(0) @ fine / image.sum()) == pytest.approx(x, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), down=st.integers(-2, 2), right=st.integers(-2, 2))
def test_shift_of_the_kernel_changes_nothing(seed, down, right):
    small = random_kernel(seed, side=11).coefficients
    framed = torch.nn.functional.pad(small, (4, 4, 4, 4))
    one, other = Kernel(framed, 2), Kernel(torch.roll(framed, (down, right), (0, 1)), 2)
    axis = torch.arange(-6.0, 7.0)
    assert torch.allclose(one.image(axis + 0.3, axis), other.image(axis + 0.3, axis), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_images_stay_in_place_when_the_kernel_changes_its_centre(seed):
    before = Kernel.gaussian(1.2, radius_px=5, samples_per_px=2)
    coefficients = before.coefficients.clone()
    coefficients[12, 15] += 0.05 * (1 + seed % 3)
    after = Kernel(coefficients, 2)
    state = Reconstruction(before, one_molecule(12.3, 11.8, 1000.0), torch.zeros(1), torch.ones(24, 24))
    moved = with_kernel(state, after)
    # The grid of the kernel has not moved, so neither has the light that it had before.
    shift = torch.tensor(after.centre_px()) - torch.tensor(before.centre_px())
    assert torch.allclose(moved.molecules.position - state.molecules.position, shift[None].float(), atol=1e-5)


def test_scale_belongs_to_the_photons(explained):
    frames, state = explained[0]
    doubled = Frames(2 * frames.electrons, 2 * frames.read_variance)
    bright = Reconstruction(
        state.kernel,
        state.molecules._replace(photons=2 * state.molecules.photons),
        2 * state.level,
        state.shape,
    )
    one, other = improve_kernel([(frames, state)]), improve_kernel([(doubled, bright)])
    assert torch.allclose(one.coefficients, other.coefficients, atol=1e-6)


@pytest.mark.parametrize("apart", [0.3, 1.0])
def test_two_halves_of_one_molecule_become_one(apart):
    kernel = Kernel.gaussian(1.2, radius_px=5, samples_per_px=2, spread=0)
    truth = Reconstruction(kernel, one_molecule(12.0, 12.0, 3000.0), torch.full((1,), 20.0), torch.ones(24, 24))
    frames = Frames(truth.expected(), torch.ones(24, 24))
    place = torch.tensor([[12.0, 12 - apart / 2], [12.0, 12 + apart / 2]])
    halves = truth.with_molecules(Molecules(torch.zeros(2, dtype=torch.long), place, torch.full((2,), 1500.0)))
    state = explain(frames, halves, Limits(most=9, separation_px=2.0), usual_photons=3000.0)
    assert len(state.molecules.frame) == 1
    assert float(state.molecules.photons[0]) == pytest.approx(3000, rel=0.01)


def test_two_molecules_that_are_there_stay_two():
    kernel = Kernel.gaussian(1.2, radius_px=5, samples_per_px=2, spread=0)
    place = torch.tensor([[12.0, 11.1], [12.0, 12.9]])
    two = Molecules(torch.zeros(2, dtype=torch.long), place, torch.full((2,), 3000.0))
    truth = Reconstruction(kernel, two, torch.full((1,), 20.0), torch.ones(24, 24))
    frames = Frames(truth.expected(), torch.ones(24, 24))
    state = explain(frames, truth, Limits(most=9, separation_px=2.0), usual_photons=3000.0)
    assert torch.allclose(state.molecules.position, place, atol=0.02)


def one_molecule(y, x, photons):
    return Molecules(torch.zeros(1, dtype=torch.long), torch.tensor([[y, x]]), torch.tensor([photons]))


# --- steps --------------------------------------------------------------------------------------------------------


def test_no_step_lowers_the_likelihood(explained):
    frames, state = explained[0]
    noise = torch.randn(state.molecules.position.shape, generator=torch.Generator().manual_seed(0))
    shaken = state.with_molecules(state.molecules._replace(position=state.molecules.position + 0.2 * noise))

    def value(some):
        return float(log_likelihood(frames, some.expected()).double().sum())

    steps = [shaken]
    for _ in range(4):
        steps.append(move_molecules(frames, steps[-1]))
    steps.append(with_kernel(steps[-1], improve_kernel([(frames, steps[-1])])))
    values = [value(some) for some in steps]
    assert all(after >= before - 0.5 for before, after in pairwise(values))


def test_slopes_are_those_of_the_image():
    from smlm_pb.training.label_free.molecules import Patches

    kernel = random_kernel(4)
    state = Reconstruction(kernel, one_molecule(12.2, 11.7, 1.0), torch.zeros(1), torch.ones(24, 24))
    patches, h = Patches.of(state, slopes=True), 1e-2
    for axis, slope in ((0, patches.slope_y), (1, patches.slope_x)):
        step = torch.zeros(1, 2)
        step[0, axis] = h
        up, down = (
            Patches.of(state.with_molecules(state.molecules._replace(position=p)), slopes=False).share
            for p in (state.molecules.position + step, state.molecules.position - step)
        )
        assert torch.allclose((up - down) / (2 * h), slope, atol=2e-3)


def test_tie_holds_molecules_near_the_detectors_word():
    kernel = Kernel.gaussian(1.2, radius_px=5, samples_per_px=2, spread=0)
    truth = Reconstruction(kernel, one_molecule(12.0, 12.0, 100.0), torch.full((1,), 20.0), torch.ones(24, 24))
    frames = Frames(truth.expected(), torch.ones(24, 24))
    start = truth.with_molecules(one_molecule(12.0, 12.5, 100.0))
    free, tied = start, start
    for _ in range(10):
        free = move_molecules(frames, free)
        tied = move_molecules(frames, tied, tie=start.molecules.position, tie_px=0.1)
    assert abs(float(free.molecules.position[0, 1]) - 12) < 0.05
    assert float(tied.molecules.position[0, 1]) > 12.2


def test_unused_slots_lose_their_light_and_go(explained):
    frames, state = explained[0]
    empty = Molecules(torch.tensor([0, 5]), torch.tensor([[3.0, 3.0], [30.0, 20.0]]), torch.tensor([500.0, 500.0]))
    state = explain(frames, state.with_molecules(state.molecules.joined(empty)), Limits(60, 2.0), usual_photons=3000.0)
    again = explain(frames, explained[0][1], Limits(60, 2.0), usual_photons=3000.0)
    assert abs(len(state.molecules.frame) - len(again.molecules.frame)) <= 1


def test_top_k_keeps_the_strongest():
    frame = torch.tensor([0, 0, 0, 1])
    some = Molecules(frame, torch.rand(4, 2), torch.tensor([1.0, 3.0, 2.0, 9.0]))
    kept = strongest(some, some.photons, torch.tensor([2, 2]))
    assert kept.photons.tolist() == [3.0, 2.0, 9.0]


def test_evidence_is_what_the_likelihood_loses(explained):
    frames, state = explained[0]
    index = 7
    without = torch.ones(len(state.molecules.frame), dtype=torch.bool)
    without[index] = False
    lost = log_likelihood(frames, state.expected()) - log_likelihood(
        frames, state.with_molecules(state.molecules.select(without)).expected()
    )
    assert float(evidence(frames, state)[index]) == pytest.approx(float(lost.double().sum()), rel=1e-2)


def test_better_chooses_frame_by_frame(explained):
    frames, state = explained[0]
    nothing_in_some = state.with_molecules(state.molecules.select(state.molecules.frame % 2 == 0))
    nothing_in_others = state.with_molecules(state.molecules.select(state.molecules.frame % 2 == 1))
    both = better(frames, nothing_in_some, nothing_in_others)
    assert len(both.molecules.frame) == len(state.molecules.frame)


def test_peaks_find_what_is_missing(explained):
    frames, state = explained[0]
    missing = state.molecules.select(torch.arange(len(state.molecules.frame)) % 4 != 0)
    found = peaks(frames, state.with_molecules(missing), separation_px=2.0, most=60)
    assert len(found.frame) >= 0.8 * (len(state.molecules.frame) - len(missing.frame))


def test_merging_keeps_light_and_its_centre():
    two = Molecules(torch.zeros(2, dtype=torch.long), torch.tensor([[5.0, 5.0], [5.0, 6.0]]), torch.tensor([3.0, 1.0]))
    kernel = Kernel.gaussian(1.0, radius_px=4, samples_per_px=2)
    one = merged(Reconstruction(kernel, two, torch.ones(1), torch.ones(9, 9)), separation_px=1.5).molecules
    assert one.photons.tolist() == [4.0]
    assert one.position[0].tolist() == pytest.approx([5.0, 5.25])


# --- the whole ----------------------------------------------------------------------------------------------------


def correlation(kernel, true):
    axis = np.arange(-20, 21) / 4
    learned = kernel.image(*(torch.tensor(axis, dtype=torch.float32),) * 2).numpy()
    return float(np.corrcoef(learned.ravel(), true.at(axis, axis).ravel())[0, 1])


def gaussian_psf(sigma_x, sigma_y):
    from smlm_pb.simulation.rendering import pixel_integral_derivatives

    axis = np.arange(-24, 25) / 3
    x, y = (pixel_integral_derivatives(axis, s)[0] for s in (sigma_x, sigma_y))
    return SampledPsf(np.outer(y, x), 3)


def test_psf_and_molecules_are_found_from_a_wrong_start(explained, movie_and_truth):
    _, truth = movie_and_truth
    (_, state), true = explained[0], gaussian_psf(1.1, 1.1)
    assert correlation(Kernel.gaussian(1.35, radius_px=5, samples_per_px=2), true) < 0.985
    assert correlation(state.kernel, true) > 0.999
    inside = ((state.molecules.position >= -0.5) & (state.molecules.position < 39.5)).all(1)
    assert int(inside.sum()) == pytest.approx(len(truth), rel=0.1)
    assert deviance_per_px(explained) == pytest.approx(1, abs=0.12)
    assert float(state.level.median()) == pytest.approx(20, rel=0.05)


def test_an_elongated_psf_is_found_from_a_round_start(tmp_path):
    from smlm_pb.simulation.sampled_psf import write_psf

    true = gaussian_psf(1.0, 1.7)
    write_psf(tmp_path / "psf.tif", true.samples, 3)
    movie, _ = make_movie({"file": str(tmp_path / "psf.tif")}, per_um2=0.3)
    frames = as_frames(movie)
    chunks = [(frames, begin(frames, Kernel.gaussian(1.3, radius_px=6, samples_per_px=2)))]
    for separation in (5.0, 4.0, 3.0, 2.5):
        chunks = run_round(chunks, Limits(most=60, separation_px=separation))
    assert correlation(chunks[0][1].kernel, true) > 0.998


def test_networks_are_told_how_crowded_the_molecules_of_the_movie_lie():
    """Pairs 3 px apart, and as many molecules on a loose grid."""
    frame = torch.arange(8).repeat_interleave(8)
    place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(2), indexing="ij"), -1).reshape(8, 2).repeat(8, 1)
    alone, photons = 12.0 * place.float() + 6, torch.full((64,), 900.0)
    paired = torch.cat((alone, alone + torch.tensor([0.0, 3.0])))
    shape = (8, 64, 64)
    even = population_of(Molecules(frame, alone, photons), shape)[0]
    crowded = population_of(Molecules(frame.repeat(2), paired, photons.repeat(2)), shape)[0]
    assert even[3] == pytest.approx(64 / math.prod(shape))
    assert even[4] == pytest.approx(CROWDING_RANGE[0] * even[3])
    assert crowded[4] == pytest.approx(1 / (math.pi * (FARTHEST_PX**2 - NEAREST_PX**2)), rel=0.06)


def test_crops_hold_their_molecules_and_are_the_same_again(explained):
    options = {"psf_sigma_px": 1.2, "seed": 1, "batch_size": 6, "crop_px": 24, "renoised": 0.5}
    crops = Crops(explained, **options)
    batch, again = crops.draw(4), Crops(explained, **options).draw(4)
    assert batch.electrons.shape == (6, 1, 24, 24)
    assert torch.equal(batch.electrons, again.electrons)
    assert torch.equal(batch.position, again.position)
    assert not torch.equal(batch.electrons, crops.draw(5).electrons)
    assert bool(((batch.position >= -0.5) & (batch.position < 23.5)).all())
    at = batch.position.round().long()
    brightness = batch.electrons[batch.item, 0, at[:, 0], at[:, 1]]
    assert float(brightness.median()) > 5 * float(batch.background.mean())


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, movie_and_truth):
    out = tmp_path_factory.mktemp("run")
    rounds = []
    result = learn_unlabelled(
        movie_and_truth[0], out, name="own", settings=LabelFreeSettings(**TINY), on_round=rounds.append, **CONDITIONS
    )
    return out, result, rounds


def test_run_leaves_a_model_a_psf_and_pictures(short_run, movie_and_truth):
    import smlm_pb

    out, result, rounds = short_run
    assert result.model_folder == out / "own"
    assert [entry["round"] for entry in rounds] == [1, 2, 3]
    psf = read_psf(result.psf_file)
    assert psf.gaussian_widths() == pytest.approx((1.1, 1.1), abs=0.12)
    assert psf.samples_per_px == 2
    for picture in (result.psf_picture, result.frames_picture):
        assert picture.read_bytes().startswith(b"\x89PNG")
    model = load_model(result.model_folder, "cpu")
    assert model.card.training["like"]["learned"]["psf_sigma_x_px"] == pytest.approx(1.1, abs=0.12)
    assert model.card.photons[0] < 3000 < model.card.photons[1]
    assert model.card.psf_sigma_px[0] < result.psf_sigma_x_px < model.card.psf_sigma_px[1]
    table = smlm_pb.localize(movie_and_truth[0], model=model, threshold=0.5, camera=CAMERA, psf_sigma_px=1.15)
    assert table.info.n_frames == 24
    experiment = Experiment.from_yaml(result.model_folder / "experiment.yaml")
    assert read_psf(experiment.scene_settings().psf_file).samples_per_px == 2
    recipe = {"frames": 1, "psf": {"file": str(result.psf_file)}, "molecules": {"density_per_um2": 1.0}}
    assert simulate(recipe)[1]["psf_sigma_x"][0] == pytest.approx(1.1, abs=0.12)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_run_continues_to_the_same_model(tmp_path, short_run, movie_and_truth, stop_after):
    done = []
    arguments = {"name": "own", "settings": LabelFreeSettings(**TINY), **CONDITIONS}
    stopped = learn_unlabelled(
        movie_and_truth[0],
        tmp_path,
        on_step=lambda *a: done.append(a),
        should_stop=lambda: len(done) >= stop_after,
        **arguments,
    )
    assert stopped.steps == stop_after
    with pytest.raises(OutputError, match="already holds a run: continue it with resume=True"):
        learn_unlabelled(movie_and_truth[0], tmp_path, **arguments)
    result = learn_unlabelled(movie_and_truth[0], tmp_path, resume=True, **arguments)
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (result.model_folder, short_run[0] / "own")]
    assert weights[0] == weights[1]
    assert result.psf_file.read_bytes() == short_run[1].psf_file.read_bytes()


def test_resume_with_other_settings_or_another_movie_is_refused(short_run, movie_and_truth):
    out, _, _ = short_run
    other = LabelFreeSettings(**{**TINY, "renoised": 0.25})
    with pytest.raises(ConfigurationError, match="other settings: 'like'"):
        learn_unlabelled(movie_and_truth[0], out, name="own", settings=other, resume=True, **CONDITIONS)
    with pytest.raises(ConfigurationError, match="other settings: 'like'"):
        learn_unlabelled(
            movie_and_truth[0][:20], out, name="own", settings=LabelFreeSettings(**TINY), resume=True, **CONDITIONS
        )


def test_a_trained_model_is_refined_together_with_the_psf(tmp_path, short_run, movie_and_truth):
    tiny = {**TINY, "steps": 2, "rounds": 2}
    result = learn_unlabelled(
        movie_and_truth[0], tmp_path, start=short_run[1].model_folder, settings=LabelFreeSettings(**tiny), **CONDITIONS
    )
    card = load_model(result.model_folder, "cpu").card
    assert card.training["start"]["model"] == "own"
    assert card.network == load_model(short_run[1].model_folder, "cpu").card.network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda movie: movie[:5], "5 frames are too few to learn from; give at least 10"),
        (lambda movie: movie[:, :20, :20], "frames of 20 × 20 px: at least 32 × 32 are needed"),
        (lambda movie: np.minimum(movie, 255), "of the pixels are saturated"),
        (
            lambda movie: np.random.default_rng(0).poisson(40, movie.shape).astype(np.uint16) + 100,
            "no molecules were found in the 24 frames looked at; at least 200 are needed",
        ),
        (lambda movie: movie[:12, :36, :36], "only [0-9]+ molecules were found in the 12 frames"),
    ],
)
def test_movies_that_teach_nothing_are_refused(tmp_path, movie_and_truth, change, message):
    with pytest.raises(MovieError, match=message):
        learn_unlabelled(change(movie_and_truth[0]), tmp_path, settings=LabelFreeSettings(**TINY), **CONDITIONS)


def test_stopped_before_the_first_step(tmp_path, movie_and_truth):
    with pytest.raises(Cancelled, match="before its first step"):
        learn_unlabelled(
            movie_and_truth[0], tmp_path, settings=LabelFreeSettings(**TINY), should_stop=lambda: True, **CONDITIONS
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps = 0 must be a whole number >= 1"),
        ({"crop_px": 8}, "crop_px = 8"),
        ({"renoised": 1.0}, "renoised = 1.0 must be 0 or more, below 1"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_impossible_settings(values, message):
    with pytest.raises(ConfigurationError, match=message):
        LabelFreeSettings(**values)


def test_rounds_begin_at_once_and_in_order():
    begins = LabelFreeSettings().round_begins()
    assert begins[0] == 0
    assert begins == sorted(begins)
    assert begins[-1] < LabelFreeSettings().steps


def test_command_line(tmp_path, capsys, monkeypatch, movie_and_truth):
    import tifffile

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smlm_pb.training.label_free.settings.NEW", {"steps": 2, "rounds": 2})
    small = {"channels": 4, "blocks": 1, "batch_size": 2, "calibration_scenes": 16}
    original = LabelFreeSettings.of
    monkeypatch.setattr(LabelFreeSettings, "of", lambda **given: original(**{**given, **small}))
    tifffile.imwrite("movie.tif", movie_and_truth[0], photometric="minisblack")
    command = ["train", "--unlabelled", "movie.tif", "--out", "run", "--psf-sigma-px", "1.3"]
    command += ["--offset-adu", "100", "--e-per-adu", "0.5"]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert "model: run/unlabelled-movie  (smlm-pb localize --model run/unlabelled-movie)" in out
    assert "PSF: run/unlabelled-movie/psf.tif, a width (sigma) of 1." in out
    assert "round 2 of 2" in err
    assert "finished 2/2 steps" in err
    assert cli.main([*command, "--dry-run"]) == 2
    assert "--unlabelled MOVIE does not go with --dry-run" in capsys.readouterr().err


# --- the benchmark ------------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    """Import the script as if it were run from its folder, and forget it afterwards."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("label_free")
    for name in ("label_free", "_report", "_runs"):
        sys.modules.pop(name, None)


def test_benchmark_begins_with_what_the_goals_are_about(benchmark):
    wanted = benchmark.parts(2, quick=False)
    assert len(set(map(benchmark.key, wanted))) == len(wanted)
    assert [part[0] for part in wanted[:4]] == ["learned"] * 2 + ["supervised"] * 2
    assert {part[2] for part in wanted[:2]} == {benchmark.GOAL_DENSITY}


def test_tables_of_the_benchmark_tell_what_there_is(benchmark):
    scores = {"jaccard": 0.9, "rmse_nm": 7.0, "pull": 1.0}
    results = {
        "learned-Airy-0.1-0": {"correlation": 0.998, "scores": scores, "shipped": scores},
        "supervised-Airy-0-0": {"scores": {"0.1": {**scores, "jaccard": 0.95}}},
    }
    psf, detector = benchmark._tables(results, 1)
    assert psf.rows == [["Airy", "0.1", "1", "0.99800", "0.99800", "0.99"]]
    assert detector.rows[0][2:6] == ["1", "0.900", "0.950", "0.947"]


@pytest.mark.slow
def test_benchmark_runs(benchmark, tmp_path):
    assert benchmark.main(["--quick", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "label_free.json").read_text(encoding="utf-8"))
    assert 0 < record["results"]["parts"]["learned-Gaussian-0.5-0"]["correlation"] < 1
    assert (tmp_path / "label_free.png").stat().st_size > 5000
    assert str(tmp_path) not in json.dumps(record), "results name folders of one machine"
