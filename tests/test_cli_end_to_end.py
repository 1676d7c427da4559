"""All verbs after one another, as a user would: simulate, localize, evaluate, convert, render; and the demo."""

import json
from pathlib import Path

import numpy as np
import pytest
from hand_made_model import make_model

from smlm_pb.cli import main as cli
from smlm_pb.errors import OutputError
from smlm_pb.formats import read_table
from smlm_pb.formats.output import written_whole

RECIPE = """
frames: 20
height: 32
width: 40
pixel_size_nm: 100
psf: {sigma_px: 1.1}
structure: {kind: uniform}
molecules: {density_per_um2: 0.15, photons: 2500, photon_distribution: constant}
background: {photons_per_px: 20}
camera: {offset_adu: 100, e_per_adu: 0.5, read_noise_e: 1.6}
"""
CAMERA = ("--offset-adu", "100", "--e-per-adu", "0.5")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


def smlm_pb(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def test_from_recipe_to_picture(tmp_path, model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beads.yaml").write_text(RECIPE)
    smlm_pb("simulate", "beads.yaml", "--out", "data", "--seed", 1, "--quiet")
    smlm_pb("localize", "data/beads.tif", *CAMERA, "--model", model, "--out", "results", "--quiet")
    capsys.readouterr()

    smlm_pb("evaluate", "results/beads_locs.hdf5", "data/beads_truth.csv", "--tolerance-nm", 50, 100, "--json")
    report = json.loads(capsys.readouterr().out)
    at_100 = report["scores"][1]
    assert at_100["jaccard"] > 0.7  # a network of thirteen channels, written by hand
    assert at_100["chance_jaccard"] < 0.05
    assert abs(at_100["bias_x_nm"]) < 10  # half a pixel would be 50
    assert abs(at_100["bias_y_nm"]) < 10

    smlm_pb("convert", "results/beads_locs.hdf5", "beads.csv", "--to", "thunderstorm")
    there, back = read_table("results/beads_locs.hdf5"), read_table("beads.csv", pixel_size_nm=100)
    assert len(there) == len(back)
    assert abs(there.x - back.x).max() < 1e-3

    smlm_pb("render", "results/beads_locs.hdf5", "--out", "beads.png")
    assert (tmp_path / "beads.png").read_bytes().startswith(b"\x89PNG")


def test_demo_shows_table_score_and_picture(tmp_path, model, capsys):
    out = tmp_path / "demo"
    smlm_pb("demo", "--out", out, "--model", model)
    text = capsys.readouterr()
    assert "probability" in text.out
    assert "by chance" in text.out
    assert str(out / "filaments_locs.hdf5") in text.out
    assert "finished 200/200 frames" in text.err
    picture = (out / "filaments.png").read_bytes()
    assert picture.startswith(b"\x89PNG")

    assert cli.main(["demo", "--out", str(out), "--model", model]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "filaments.png").read_bytes() == picture
    smlm_pb("demo", "--out", out, "--model", model, "--overwrite", "--quiet")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_called_by_its_name(tmp_path):
    with (
        pytest.raises(OutputError, match="No space left on device"),
        written_whole(tmp_path / "a.tif", False),
        Path("/dev/full").open("wb") as full,
    ):
        np.zeros(1_000_000).tofile(full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: smlm-pb {verb} ")
    for option in ("--quiet", "--debug", "--progress", "--version"):
        assert option in text


def test_the_same_option_has_the_same_default_everywhere():
    """An option of one name means one thing, whichever verb has it."""
    defaults = {}
    for verb in cli.VERBS:
        for action in cli.build_parser(verb)._subparsers._group_actions[0].choices[verb]._actions:
            for option in action.option_strings:
                defaults.setdefault(option, {})[verb] = action.default
    for option in ("--model", "--device", "--threshold", "--frames", "--overwrite", "--offset-adu", "--e-per-adu"):
        # A twin, in a report too, is localized as its table was, unless something else is asked for.
        by_verb = {verb: default for verb, default in defaults[option].items() if verb not in ("twin", "report")}
        assert len(set(map(str, by_verb.values()))) == 1, (option, by_verb)
