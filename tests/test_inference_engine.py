"""The engine: folded weights and fewer digits change nothing that anybody would notice, or are not used."""

import argparse
import copy
import json
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from hand_made_model import make_model, make_movie
from marks import NEEDS_CARD, NEEDS_INTEGERS

from smlm_pb.camera import Camera
from smlm_pb.cli import main as cli
from smlm_pb.cli.progress import tell_of_first_use
from smlm_pb.errors import ConfigurationError
from smlm_pb.formats import read_table
from smlm_pb.localization import load_model, localize, pipeline, precision, precision_check
from smlm_pb.localization.candidate_finder import CandidateFinder, Unwanted
from smlm_pb.localization.candidates import list_candidates, select_candidates
from smlm_pb.localization.pipeline import Plan
from smlm_pb.localization.precision import (
    choose_precision,
    is_settled,
    measure_speed_ups,
    processor_has_bfloat16,
    processor_has_integers,
)
from smlm_pb.localization.precision_check import MOST_SHIFT, PrecisionCheck, check_precision
from smlm_pb.movies import open_movie
from smlm_pb.networks import NetworkSettings, build_network, inference, predict_tiled
from smlm_pb.networks.inference import FixedWidthNetwork
from smlm_pb.networks.integer_convolution import has_integer_operations

pytestmark = pytest.mark.filterwarnings("default::UserWarning")

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
GOOD = PrecisionCheck(1000, 0.7, 0.0005, 0.3, 0.001, 0.01, 0.0)


@pytest.fixture(scope="module")
def default():
    return load_model("default", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("models") / "hand-made"), "cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "settings", [{}, {"backbone": "paper"}, {"mixed_kernels": 2}], ids=["residual", "paper", "mixed"]
)
@pytest.mark.parametrize("psf_sigma_px", [0.8, 1.1, 1.6])
def test_a_known_width_is_folded_into_the_weights(settings, psf_sigma_px):
    torch.manual_seed(0)
    network = build_network(NetworkSettings(channels=16, blocks=3, **settings)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # blocks begin as the identity, modulation as nothing
            parameter.add_(0.1 * torch.randn_like(parameter))
    image = torch.poisson(torch.full((2, 1, 40, 33), 20.0))
    width = torch.full((2,), psf_sigma_px)
    with torch.inference_mode():
        before, after = network(image, width), FixedWidthNetwork(network, psf_sigma_px)(image, width)
    for name, ours, theirs in zip(before._fields, after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4, msg=name)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", pytest.param("int8", marks=NEEDS_INTEGERS)])
def test_tiles_and_batches_change_nothing(default, kind):
    image = torch.poisson(torch.full((2, 1, 90, 75), 20.0), generator=torch.Generator().manual_seed(1))
    image[:, :, 40:43, 30:33] += 300
    width = torch.full((2,), 1.1)
    network = FixedWidthNetwork(default.network, 1.1, precision=kind)
    with torch.inference_mode():
        whole = network(image, width)
        tiled = predict_tiled(network, image, width, tile_px=41)
        alone = network(image[1:], width[1:])
    for ours in (tiled.dx, tiled.dy):
        assert ours.shape == whole.dx.shape
    assert (whole.dx - tiled.dx).abs().max() < 1e-4
    assert (whole.dx[1:] - alone.dx).abs().max() < 1e-4
    assert (whole.logit - tiled.logit).abs().max() < 1e-3


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CARD)])
@pytest.mark.parametrize("n_candidates", [1, 2, 3])
@pytest.mark.parametrize("size", [5, 40])
def test_chosen_pixels_are_read_out_as_all_are(n_candidates, size, device):
    torch.manual_seed(n_candidates)
    network = build_network(NetworkSettings(channels=16, blocks=1, n_candidates=n_candidates)).eval().to(device)
    with torch.no_grad():
        network.head.weight.mul_(20)
        network.head.bias.add_(torch.randn_like(network.head.bias))
    image = torch.poisson(torch.full((2, 1, size, size + 3), 20.0)).to(device)
    used = FixedWidthNetwork(network, 1.1)
    with torch.inference_mode():
        field = used(image, torch.full((2,), 1.1, device=device))
        logits = field.logit.permute(0, 2, 3, 1)
        features = used.features(image).permute(0, 2, 3, 1).flatten(0, 2)
        torch.testing.assert_close(used.logits(features), logits.flatten(0, 2), rtol=1e-5, atol=1e-5)
        for smallest in (float(logits.median()) + 1e-3, float(logits.max()) + 1.0, -math.inf):
            item, row, column, number = (logits >= smallest).nonzero(as_tuple=True)
            pixel, candidate = used.likely(features, smallest)
            assert torch.equal(pixel, (item * size + row) * (size + 3) + column)
            assert torch.equal(candidate, number)
            ours = used.say(features[pixel], candidate)
            for name, maps, values in zip(field._fields[:-1], field, ours, strict=False):
                theirs = maps[item, number, row, column]
                torch.testing.assert_close(values, theirs, rtol=1e-5, atol=1e-5, msg=name)
            torch.testing.assert_close(ours.background, field.background[item, row, column], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tile_px", [64, 23])
def test_frames_may_be_listed_in_any_batches(default, tile_px):
    image = torch.poisson(torch.full((5, 1, 40, 52), 20.0), generator=torch.Generator().manual_seed(2))
    image[:, :, 17:20, 30:33] += 100
    network = FixedWidthNetwork(default.network, 1.1)
    how = {"tile_px": tile_px, "first_frame": 7, "floor": 0.01}
    with torch.inference_mode():
        whole = list_candidates(network, [image], 1.1, **how).rows
        parted = list_candidates(network, image.split([1, 3, 1]), 1.1, **how).rows
        all_pixels = select_candidates(network(image, torch.full((5,), 1.1)), first_frame=7, floor=0.01).rows
    assert set(whole["frame"]) == {7, 8, 9, 10, 11}
    for rows in (parted, all_pixels):
        for name in whole.dtype.names:
            np.testing.assert_allclose(rows[name], whole[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_finder_nobody_waits_for_stops_before_the_next_batch(default):
    seen, unwanted = [], threading.Event()
    finder = CandidateFinder(default, psf_sigma_px=1.1, floor=0.05, plan=Plan(8, 2, 64), unwanted=unwanted)

    def features(batch):
        seen.append(len(batch))
        unwanted.set()
        return type(finder._network).features(finder._network, batch)

    finder._network.features = features
    with pytest.raises(Unwanted):
        finder(np.full((8, 20, 20), 10.0, np.float32))
    assert seen == [2]


@pytest.mark.parametrize("kind", ["bfloat16", pytest.param("int8", marks=NEEDS_INTEGERS)])
def test_the_shipped_model_passes_the_check(default, kind):
    check = check_precision(default, kind)
    assert check.molecules > 1000
    assert 0.4 < check.jaccard < 0.95
    assert check.passes
    if kind == "bfloat16":
        assert check == check_precision(default, kind)


def test_a_network_that_needs_its_digits_is_found_out(default):
    """Two channels that are the same, with large weights of opposite sign: their sum is lost in fewer digits."""
    network = build_network(NetworkSettings(**default.card.network)).eval().requires_grad_(False)
    network.load_state_dict(default.network.state_dict())
    block, channels = network.backbone.blocks[2], network.backbone.out_channels
    block.first.further.zero_()
    for tensor in (block.first.weight, block.first.bias):
        tensor[1] = tensor[0]
    for tensor in (block.modulation.weight, block.modulation.bias):
        tensor[1], tensor[channels + 1] = tensor[0], tensor[channels]
    large = 4096 * (1 + 0.01 * torch.rand(channels, 3, 3, generator=torch.Generator().manual_seed(0)))
    block.second.weight[:, 0] += large
    block.second.weight[:, 1] -= large
    fragile = replace(default, network=network)
    for kind in ("bfloat16", *["int8"] * has_integer_operations()):
        check = check_precision(fragile, kind)
        assert not check.passes
        assert not check.may_be_chance


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"jaccard_change": -0.003}, False),
        ({"jaccard_change": 0.003}, False),
        ({"rmse_change": 0.011}, False),
        ({"shift": 0.2}, False),
        ({"tile_difference_px": 0.001}, False),
    ],
)
def test_what_the_check_allows(change, passes):
    assert replace(GOOD, **change).passes is passes


@pytest.mark.parametrize(
    ("change", "may_be"),
    [
        ({}, False),
        ({"jaccard_change": -0.003}, True),
        ({"rmse_change": 0.015}, True),
        ({"jaccard_change": -0.005}, False),
        ({"jaccard_change": -0.003, "shift": 0.2}, False),
    ],
)
def test_narrow_failures_are_looked_at_again(change, may_be):
    assert replace(GOOD, **change).may_be_chance is may_be


def test_in_doubt_more_frames_are_simulated(default, monkeypatch):
    asked = []
    poor = replace(GOOD, jaccard_change=-0.003)
    monkeypatch.setattr(precision_check, "_compare", lambda *a: asked.append(a[2]) or (poor if a[2] < 100 else GOOD))
    assert check_precision(default, "int8") == GOOD
    assert asked == [40, 160]


@pytest.fixture
def machine(monkeypatch):
    """A machine whose abilities, speeds and checks a test can set; what was asked is listed."""
    abilities = {"bfloat16": True, "int8": False}
    found = {"speed": {"bfloat16": 1.9, "int8": 2.4}, "check": {}, "asked": []}
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: abilities["bfloat16"])
    monkeypatch.setattr(precision, "processor_has_integers", lambda: abilities["int8"])

    def speed_ups(model, kinds):
        found["asked"].append(tuple(kinds))
        return {kind: found["speed"][kind] for kind in kinds}

    def check(model, kind):
        found["asked"].append(kind)
        return found["check"].get(kind, GOOD)

    monkeypatch.setattr(precision, "measure_speed_ups", speed_ups)
    monkeypatch.setattr(precision, "check_precision", check)
    return abilities, found


def test_who_gets_fewer_digits(default, model, machine):
    abilities, found = machine
    assert not is_settled(default)
    assert is_settled(default, "float32")
    assert choose_precision(default) == "bfloat16"
    assert is_settled(default)
    assert choose_precision(default) == "bfloat16"
    assert found["asked"] == [("bfloat16",), "bfloat16"]  # the verdict is remembered
    path = precision._cache_file()
    path.write_text("{ damaged")
    assert choose_precision(default) == "bfloat16"
    assert len(found["asked"]) == 4
    verdicts = json.loads(path.read_text())
    (key,) = verdicts
    verdicts[key]["bfloat16"]["jaccard_change"] = 0.1
    path.write_text(json.dumps(verdicts))
    assert choose_precision(default) == "float32"
    path.write_text(json.dumps({key: ["damaged"]}))
    assert choose_precision(default) == "bfloat16"
    assert choose_precision(model) == "float32"  # narrow: nothing to gain
    assert choose_precision(model, "bfloat16") == "bfloat16"
    abilities["bfloat16"] = False
    assert choose_precision(default) == "float32"
    with pytest.raises(ConfigurationError, match="precision = 'half' is unknown"):
        choose_precision(default, "half")


@NEEDS_INTEGERS
def test_the_fastest_that_passes_is_taken(default, machine):
    abilities, found = machine
    abilities["int8"] = True
    assert choose_precision(default) == "int8"
    assert found["asked"] == [("bfloat16", "int8"), "int8"]
    assert is_settled(default)
    precision._cache_file().unlink()
    assert not is_settled(default)
    found["check"]["int8"] = replace(GOOD, shift=0.5)
    assert choose_precision(default) == "bfloat16"
    assert is_settled(default)
    assert found["asked"][2:] == [("bfloat16", "int8"), "int8", "bfloat16"]
    precision._cache_file().unlink()
    found["speed"] = {"bfloat16": 0.9, "int8": 1.05}
    assert choose_precision(default) == "float32"
    assert is_settled(default)


def test_that_it_takes_longer_the_first_time_is_said(default, machine, capsys):
    args = argparse.Namespace(precision="auto", quiet=False)
    tell_of_first_use(args, default)
    assert "first use of network 'default' on this machine" in capsys.readouterr().err
    choose_precision(default)
    tell_of_first_use(args, default)
    assert capsys.readouterr().err == ""


def test_integers_that_cannot_be_had_are_refused(default, monkeypatch):
    monkeypatch.setattr(inference, "has_integer_operations", lambda: False)
    with pytest.raises(ConfigurationError, match=r"precision = 'int8' .* not for model 'default' on cpu: use auto"):
        choose_precision(default, "int8")
    network = FixedWidthNetwork(default.network, 1.1, precision="int8")  # on such a worker of a cluster
    image = torch.full((1, 1, 20, 20), 20.0)
    with torch.inference_mode():
        assert torch.equal(network.features(image), FixedWidthNetwork(default.network, 1.1).features(image))


def test_speeds_are_compared_in_one_run(model):
    (speed,) = measure_speed_ups(model, ["bfloat16"]).values()
    assert 0.01 < speed < 100


def test_a_cache_that_cannot_be_written_is_no_fault(default, machine, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert choose_precision(default) == "bfloat16"


def test_processors(monkeypatch):
    monkeypatch.setattr(precision.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(precision, "_linux_processor_flags", lambda: {"fp", "bf16"})
    assert processor_has_bfloat16()
    monkeypatch.setattr(precision, "_linux_processor_flags", lambda: {"fp"})
    assert not processor_has_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    assert not processor_has_integers()
    monkeypatch.setattr(precision, "_linux_processor_flags", lambda: {"avx_vnni"})
    assert processor_has_integers()


@pytest.mark.parametrize("fewer", ["bfloat16", pytest.param("int8", marks=NEEDS_INTEGERS)])
def test_both_kinds_find_the_same_molecules(default, fewer):
    movie = make_movie(6, (48, 48), per_frame=4)[0]
    ours, theirs = (
        localize(movie, model=default, precision=kind, threshold=0.3, **CAMERA) for kind in (fewer, "float32")
    )
    assert len(ours) == len(theirs) >= 24
    for axis in "xy":
        moved = (ours[axis] - theirs[axis]) / theirs[f"sigma_{axis}"]
        assert np.sqrt(np.mean(moved**2)) < MOST_SHIFT
        if fewer == "bfloat16":
            assert np.abs(ours[axis] - theirs[axis]).max() < 0.02
    assert np.any(ours["x"] != theirs["x"])
    assert [t.provenance[-1]["engine"]["precision"] for t in (ours, theirs)] == [fewer, "float32"]


def test_the_engine_is_told_once_and_stored(tmp_path, model, capsys):
    folder = make_model(tmp_path / "model")
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, make_movie(6)[0], photometric="minisblack", metadata={"axes": "TYX"})
    command = ["localize", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "--out", str(tmp_path), "--device", "cpu"]
    command += ["--model", str(folder), "--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1"]
    assert cli.main(command) == 0
    err = capsys.readouterr().err
    assert err.count("network 'hand-made' on cpu (") == 1
    engine = read_table(tmp_path / "b_locs.hdf5").provenance[-1]["engine"]
    assert engine["device"] == "cpu"
    assert engine["threads"] >= 1
    assert engine["precision"] == "float32"
    assert engine["block_frames"] >= engine["batch_frames"] >= 1


def test_several_devices_find_what_one_finds(default, monkeypatch):
    """As on a machine with two graphics cards: a replica of the network for each, blocks to whoever is free."""
    movie = open_movie(make_movie(40, (24, 24), per_frame=2)[0])
    how = {"camera": Camera(offset_adu=100, e_per_adu=0.5), "psf_sigma_px": 1.1, "frames": (0, 40), "floor": 0.05}
    plan = Plan(block_frames=3, batch_frames=2, tile_px=24)

    def find():
        with pipeline.find_candidates(movie, default, plan=plan, **how) as blocks:
            return list(blocks)

    one = find()
    copies = [replace(default, network=copy.deepcopy(default.network)) for _ in range(2)]
    made = []
    monkeypatch.setattr(pipeline, "replicas", lambda model: copies)
    original = pipeline.CandidateFinder
    monkeypatch.setattr(
        pipeline, "CandidateFinder", lambda model, **kwargs: made.append(model) or original(model, **kwargs)
    )
    monkeypatch.setattr(pipeline, "_on_processors", lambda device: False)
    two = find()
    assert made == copies
    assert [(block.start, block.stop) for block in two] == [(start, min(start + 3, 40)) for start in range(0, 40, 3)]
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours.candidates.rows, theirs.candidates.rows)


def test_the_settings_of_the_process_are_as_before(default):
    before = torch.get_num_threads()
    localize(make_movie(12, (24, 24), per_frame=2)[0], model=default, **CAMERA)
    assert torch.get_num_threads() == before


@NEEDS_CARD
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_graphics_card_finds_what_the_processor_finds(default, kind):
    movie = make_movie(60, (48, 48), per_frame=4)[0]
    on_card = load_model("default", "cuda")
    ours, theirs = (
        localize(movie, model=m, precision=p, threshold=0.3, **CAMERA)
        for m, p in ((on_card, kind), (default, "float32"))
    )
    assert len(ours) == len(theirs) >= 24
    for axis in "xy":
        assert np.abs(ours[axis] - theirs[axis]).max() < (1e-3 if kind == "float32" else 0.02)
