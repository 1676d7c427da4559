"""``smlm-pb run``: one file from a movie to a report; whatever is wrong is named before anything starts."""

import argparse
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from hand_made_model import make_model, make_movie

from smlm_pb.analysis.drift import Drift
from smlm_pb.analysis.pipeline_file import STEPS, Pipeline
from smlm_pb.analysis.pipeline_run import run_pipeline
from smlm_pb.cli import main as cli
from smlm_pb.errors import ConfigurationError, SmlmPbError
from smlm_pb.formats import read_table


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a movie in it."""
    monkeypatch.chdir(tmp_path)
    movie = make_movie(20, seed=1)[0]
    tifffile.imwrite("beads.tif", movie, photometric="minisblack", metadata={"axes": "TYX"})
    return tmp_path


@pytest.fixture
def settings(model):
    """A pipeline with every step that the little movie allows."""
    return {
        "movie": "beads.tif",
        "out": "results",
        "localize": {
            "model": model,
            "pixel_size_nm": 100,
            "offset_adu": 100,
            "e_per_adu": 0.5,
            "psf_sigma_px": 1.1,
            "frames": [0, 15],
        },
        "filter": {"conditions": ["sigma_nm < 50", "probability > 0.2"]},
        "link": {"radius_nm": 50, "max_dark_frames": 0},
        "render": {"pixel_size_nm": 20, "endings": ["png", "tif"]},
        "report": {"title": "Beads"},
    }


def write(path, settings):
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return str(path)


# -- steps that judge -------------------------------------------------------------------------------------


def test_steps_that_judge_leave_figures_and_are_in_the_report(here, settings, capsys):
    settings["localize"] |= {"frames": None}
    settings |= {"quality": None, "residuals": {"max_frames": 6}, "twin": {"n_frames": 6, "by": ["photons"]}}
    settings |= {"superposition": {"added": [2], "gap_frames": 2}}
    assert cli.main(["run", write(here / "p.yaml", settings)]) == 0
    out, err = capsys.readouterr()
    results = here / "results"
    for name in ("quality", "residuals", "twin", "superposition"):
        assert f"{name}: " in err
        assert f"beads_{name}.json" in out
        assert json.loads((results / f"beads_{name}.json").read_text())
        assert (results / f"beads_{name}.png").read_bytes().startswith(b"\x89PNG")
    # As localized, whatever filters and linking did to the table.
    residuals = json.loads((results / "beads_residuals.json").read_text())
    localized = read_table(results / "beads_locs.hdf5")
    assert residuals["n_frames"] == 6
    assert residuals["n_molecules"] >= len(localized) // 5
    assert "suspicion" in read_table(results / "beads_suspects.csv")
    page = (results / "beads_report.html").read_text(encoding="utf-8")
    assert "What errors cost (digital twin)" in page
    assert "What is left over" in page


def test_steps_that_judge_say_beforehand_what_they_lack(here, settings):
    localized = run_pipeline(Pipeline.from_dict({**settings, "report": None}), out_dir="r").files["localize"]
    linked = localized.with_name("beads_locs_filtered_linked.hdf5")
    for name, values in (("residuals", {"movie": "beads.tif"}), ("twin", {})):
        plan = Pipeline.from_dict({"locs": str(linked), name: None, **values})
        with pytest.raises(SmlmPbError, match="is linked"):
            run_pipeline(plan, out_dir="other")
    assert not (here / "other").exists()
    for name in ("residuals", "superposition"):
        with pytest.raises(ConfigurationError, match=f"{name} looks at the movie; give movie as well"):
            Pipeline.from_dict({"locs": "a.csv", name: None})
    with pytest.raises(ConfigurationError, match="1 frames cannot be added"):
        Pipeline.from_dict({**settings, "superposition": {"added": [1, 2]}})


# -- what a good run leaves --------------------------------------------------------------------------------


def test_everything(here, settings, capsys):
    assert cli.main(["run", write(here / "p.yaml", settings)]) == 0
    out, err = capsys.readouterr()
    results = here / "results"
    assert sorted(path.name for path in results.iterdir() if path.suffix != ".yaml") == [
        "beads.png",
        "beads.tif",
        "beads_locs.hdf5",
        "beads_locs_filtered.hdf5",
        "beads_locs_filtered_linked.hdf5",
        "beads_report.html",
    ]
    for name in ("localize", "filter", "link", "render", "report"):
        assert f"{name}:" in out
        assert f"{name}:" in err
    linked = read_table(results / "beads_locs_filtered_linked.hdf5")
    assert [step["step"] for step in linked.provenance if step["step"] != "read"] == [
        "localize",
        "filter",
        "filter",
        "link",
    ]
    page = (results / "beads_report.html").read_text(encoding="utf-8")
    assert "<h1>Beads</h1>" in page
    assert "blinks" in page


def test_the_same_as_the_commands_one_by_one(here, settings, model):
    del settings["report"]
    assert cli.main(["run", write(here / "p.yaml", settings), "--quiet"]) == 0
    camera = ["--pixel-size-nm", "100", "--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1"]
    by_hand = [
        ["localize", "beads.tif", "--model", model, *camera, "--frames", "0:15", "--out", "one"],
        ["filter", "one/beads_locs.hdf5", "sigma_nm < 50", "probability > 0.2"],
        ["link", "one/beads_locs_filtered.hdf5", "--radius-nm", "50", "--max-dark-frames", "0"],
    ]
    for command in by_hand:
        (here / "one").mkdir(exist_ok=True)
        assert cli.main([*command, "--quiet"]) == 0
    name = "beads_locs_filtered_linked.hdf5"
    ours, theirs = read_table(here / "results" / name), read_table(here / "one" / name)
    assert len(ours) == len(theirs) > 0
    for column in theirs.column_names:
        np.testing.assert_array_equal(ours[column], theirs[column])


def test_steps_may_be_left_out_and_a_table_may_be_the_start(here, settings):
    run_pipeline(Pipeline.from_dict({key: settings[key] for key in ("movie", "out", "localize")}))
    start = here / "results" / "beads_locs.hdf5"
    pipeline = {"locs": str(start), "out": "more", "link": None, "render": {"endings": ["tif"]}}
    result = run_pipeline(Pipeline.from_dict(pipeline))
    assert set(result.files) == {"settings", "link", "render"}
    assert sorted(path.name for path in (here / "more").iterdir() if path.suffix != ".yaml") == [
        "beads.tif",
        "beads_locs_linked.hdf5",
    ]


def test_drift_is_corrected_before_linking_and_shown(here, settings, monkeypatch):
    def correct_drift(locs, **options):
        assert options["method"] == "correlation"
        assert options["max_drift_nm"] == 600
        path = np.linspace(0, 100, 20)
        drift = Drift(path, path, "correlation", True, "", 1.0, 1.0, 0.1, np.stack([path, path], 1), {})
        moved = locs.with_columns(x=locs["x"] - (path[locs["frame"]] / 100).astype(np.float32))
        return moved.with_provenance({"step": "drift", **drift.as_dict()}), drift

    monkeypatch.setattr("smlm_pb.analysis.drift.correct_drift", correct_drift)
    said = []
    result = run_pipeline(
        Pipeline.from_dict({**settings, "drift": {"method": "correlation"}}), on_step=lambda *step: said.append(step)
    )
    assert [name for name, _ in said] == ["localize", "filter", "drift", "link", "render", "report"]
    assert "100 nm along x" in dict(said)["drift"]
    assert result.files["link"].name == "beads_locs_filtered_undrifted_linked.hdf5"
    assert "<h2>Drift</h2>" in result.files["report"].read_text(encoding="utf-8")


def test_the_settings_are_kept_and_can_be_run_again(here, settings):
    del settings["report"]
    assert cli.main(["run", write(here / "p.yaml", settings), "--quiet"]) == 0
    kept = here / "results" / "beads_pipeline.yaml"
    again = Pipeline.from_yaml(kept)
    assert again == Pipeline.from_yaml(here / "p.yaml")
    assert yaml.safe_load(kept.read_text())["link"]["keep_rows"] is False  # defaults are filled in


def test_paths_belong_to_the_file_and_options_override(here, settings, monkeypatch):
    (here / "deep").mkdir()
    file = write(here / "deep" / "p.yaml", {**settings, "movie": "../beads.tif", "render": False, "report": False})
    monkeypatch.chdir("/")
    assert cli.main(["run", file, "--quiet"]) == 0
    assert (here / "deep" / "results" / "beads_locs_filtered.hdf5").exists()
    os.link(here / "beads.tif", here / "other.tif")
    monkeypatch.chdir(here)
    assert cli.main(["run", file, "--movie", "other.tif", "--out", "there", "--quiet"]) == 0
    assert (here / "there" / "other_locs_filtered.hdf5").exists()


def test_nothing_is_overwritten_unless_allowed(here, settings, capsys):
    del settings["report"]
    file = write(here / "p.yaml", settings)
    assert cli.main(["run", file, "--quiet"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (here / "results").iterdir()}
    assert cli.main(["run", file, "--quiet"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (here / "results").iterdir()} == before

    locs = here / "results" / "beads_locs.hdf5"
    assert cli.main(["run", file, "--quiet", "--resume"]) == 0
    assert locs.stat().st_mtime_ns == before[locs]  # complete: kept
    assert (here / "results" / "beads.png").stat().st_mtime_ns > before[here / "results" / "beads.png"]
    assert cli.main(["run", file, "--quiet", "--overwrite"]) == 0
    assert locs.stat().st_mtime_ns > before[locs]


# -- what is wrong is said before anything starts ----------------------------------------------------------


def change(path, value):
    def edit(settings):
        *parents, last = path.split(".")
        section = settings
        for name in parents:
            section = section[name]
        if value is KeyError:
            del section[last]
        else:
            section[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change("lnik", {}), ["lnik", "link"]),
        (change("link.max_dark_frame", 2), ["link.max_dark_frame", "max_dark_frames"]),
        (change("link.radius_nm", -3), ["link.radius_nm = -3", "greater than 0", "e.g."]),
        (change("render.method", "gausian"), ["render.method", "gaussian"]),
        (change("render.endings", ["jpg"]), ["render.endings", "png"]),
        (change("localize.threshold", 3), ["localize.threshold", "between 0 and 1"]),
        (change("localize.frames", "9:5"), ["localize.frames", "holds no frame"]),
        (change("localize.frames", 650), ["localize.frames", "[0, 1000]"]),
        (change("localize.frames", [5, 5]), ["localize.frames", "larger"]),
        (change("localize.model", "nonesuch"), ["nonesuch", "model"]),
        (change("localize.device", "tpu"), ["tpu", "cpu"]),
        (change("filter", {}), ["filter", "no condition"]),
        (change("filter.radius_nm", 50), ["min_neighbours and radius_nm"]),
        (change("filter.conditions", ["fotons > 3"]), ["Step filter", "fotons", "photons"]),
        (change("filter.conditions", ["photons >"]), ["Step filter", "Cannot read"]),
        (change("filter.roi", [5, 5, 1, 1]), ["Step filter", "empty"]),
        (change("link.dark_times", True), None),
        (change("link", {"keep_rows": True, "dark_times": True}), ["link", "keep_rows or dark_times"]),
        (change("render.blur_nm", 5), None),
        (change("render", {"method": "gaussian", "blur_nm": 5}), ["Step render", "blur_nm"]),
        (change("render.colormap", "hott"), ["Step render", "hott"]),
        (change("render.colour_by", "colour"), ["Step render", "colour"]),
        (change("movie", "nothing.tif"), ["nothing.tif"]),
        (change("movie", KeyError), ["nothing to start from"]),
        (change("locs", "beads_locs.hdf5"), ["leave one of them out"]),
        (change("localize", KeyError), ["localize is left out"]),
        (change("report.truth", "nothing.csv"), ["nothing.csv"]),
    ],
)
def test_wrong_files(here, settings, edit, words, capsys):
    edit(settings)
    if words is None:
        del settings["report"]
    code = cli.main(["run", write(here / "p.yaml", settings), "--quiet"])
    if words is None:
        assert code == 0
        return
    err = capsys.readouterr().err
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err
    assert not (here / "results").exists()


def test_conditions_in_nm_need_the_pixel_size(here, settings):
    del settings["localize"]["pixel_size_nm"]
    with pytest.raises(SmlmPbError, match=r"Step filter.*pixel size"):
        run_pipeline(Pipeline.from_dict(settings))


def test_a_target_in_the_way_is_found_before_the_work(here, settings):
    (here / "results").mkdir()
    (here / "results" / "beads.png").touch()
    with pytest.raises(SmlmPbError, match=r"beads\.png exists already"):
        run_pipeline(Pipeline.from_dict(settings))
    assert [path.name for path in (here / "results").iterdir()] == ["beads.png"]


def test_nothing_to_do():
    with pytest.raises(ConfigurationError, match="nothing to do"):
        Pipeline.from_dict({"locs": "a.hdf5"})


# -- the file and the commands are one language ------------------------------------------------------------

#: Options of the commands that say where things are, not what is done.
INPUT_AND_OUTPUT = {
    "movies", "locs", "out", "overwrite", "resume", "summary", "format", "target_format", "suffix", "movie", "unlinked",
    "help", "figure", "json", "path_out",
}  # fmt: skip
#: What the whole pipeline says once, for all its steps.
SAID_ONCE = {
    "filter": {"pixel_size_nm"},
    "drift": {"pixel_size_nm"},
    # Switching times are of single movies, and asked for by the command only.
    "link": {"pixel_size_nm", "sub_frame_times", "exposure_ms", "psf_sigma_px"},
    "render": {"camera_pixel_size_nm"},
    "quality": {"pixel_size_nm"},
    "residuals": {"pixel_size_nm", "offset_adu", "e_per_adu", "em_gain", "device", "frames"},
    "twin": {"pixel_size_nm", "offset_adu", "e_per_adu", "em_gain", "device", "threshold"},
    "superposition": {
        *("pixel_size_nm", "offset_adu", "e_per_adu", "em_gain", "device", "frames"),
        *("model", "threshold", "psf_sigma_px"),
    },
    "report": {"camera_pixel_size_nm", "model", "device", "residuals", "twin", "full"},
}
ONLY_IN_THE_FILE = {"render": {"endings"}}


def commands():
    return [step for step in STEPS if step in cli.VERBS]


@pytest.mark.parametrize("step", commands())
def test_every_option_of_a_command_is_in_the_file_with_its_default(step):
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    importlib.import_module(f"smlm_pb.cli.{step}").add_parser(subparsers)
    actions = {action.dest: action for action in subparsers.choices[step]._actions}
    options = set(actions) - INPUT_AND_OUTPUT - SAID_ONCE.get(step, set())
    annotation = Pipeline.model_fields[step].annotation
    section = next(part for part in annotation.__args__ if part is not type(None))
    fields = section.model_fields
    assert set(fields) - ONLY_IN_THE_FILE.get(step, set()) == options
    for name in options:
        default = actions[name].default
        default = tuple(default) if isinstance(default, list) else default
        assert (fields[name].default or None) == (default or None), name


def test_every_field_is_described_with_an_example():
    for name, field in Pipeline.model_fields.items():
        assert field.description, name
        assert field.examples, name


def test_the_example_shows_every_step():
    example = Path(__file__).parents[1] / "examples" / "pipeline.yaml"
    pipeline = Pipeline.from_yaml(example)
    assert pipeline.steps == STEPS
    assert Path(pipeline.movie).exists()
    assert Path(pipeline.report.truth).exists()
