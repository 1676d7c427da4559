"""``smlm-pb localize``: many inputs, one clear line for whatever is wrong, nothing lost."""

import json
import re

import numpy as np
import pytest
import tifffile
from hand_made_model import make_model, make_movie

from smlm_pb.cli import main as cli
from smlm_pb.cli.inputs import find_movies
from smlm_pb.cli.localize import REPORT_FILE
from smlm_pb.formats import read_table

#: Movies of a few frames are warned of; Python would turn that into an error here.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

CAMERA = ("--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, model, capsys):
    """Run ``smlm-pb localize`` with the hand-made model; returns code, stdout, stderr."""

    def run(*arguments, camera=CAMERA, model=model):
        capsys.readouterr()
        code = cli.main(["localize", "--model", str(model), *camera, *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def save(path, frames):
    tifffile.imwrite(path, frames, photometric="minisblack", metadata={"axes": "TYX"})


def write(path, n_frames=6, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, make_movie(n_frames, **options)[0])
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- what a good run looks like ----------------------------------------------------------------------------


def test_one_movie(here, run, monkeypatch):
    write(here / "beads.tif")
    monkeypatch.setattr("sys.argv", ["smlm-pb", "localize", "beads.tif"])
    code, out, err = run("beads.tif", "--pixel-size-nm", 100, "--out", "results")
    assert code == 0
    assert names(here / "results") == ["beads_locs.hdf5", "beads_locs.yaml", REPORT_FILE]
    head, row, written = out.splitlines()
    assert head.split()[:4] == ["movie", "frames", "molecules", "frames/s"]
    table = read_table(here / "results" / "beads_locs.hdf5")
    assert row.split()[:3] == ["beads", "6", str(len(table))]
    assert " nm " in row
    assert row.endswith("(auto)")
    assert written == "written: results/beads_locs.hdf5"
    assert "offset 100 ADU (given)" in err
    assert "100 nm pixels (given)" in err
    assert "finished 6/6 frames" in err
    assert table.provenance[-1]["command"] == "smlm-pb localize beads.tif"


def test_quiet_says_nothing_but_the_result(here, run):
    write(here / "beads.tif")
    code, out, err = run("beads.tif", "--quiet")
    assert (code, err) == (0, "")
    assert "beads" in out


def test_summary_as_json_is_also_in_the_report(here, run):
    write(here / "beads.tif")
    code, out, _ = run("beads.tif", "nothing.tif", "--out", "results", "--summary", "json", "--threshold", 0.4)
    assert code == 1
    report = json.loads(out)
    assert json.loads((here / "results" / REPORT_FILE).read_text()) == report
    good, bad = report["movies"]
    assert good["frames"] == good["frames_done"] == 6
    assert good["threshold"]["threshold"] == 0.4
    assert 0 < good["threshold"]["jaccard"] < 1
    assert good["frames_per_s"] > 0
    assert good["median_sigma_nm"] is None  # without a pixel size
    assert good["median_sigma_px"] == pytest.approx(0.095, rel=0.05)
    assert bad["movie"] == "nothing.tif"
    assert "no movie" in bad["error"]


def test_progress_for_scripts_tells_the_time_left(here, run, monkeypatch):
    from smlm_pb.cli import progress
    from smlm_pb.localization import pipeline

    monkeypatch.setattr(progress, "_JSON_INTERVAL_S", 0.0)
    monkeypatch.setattr(pipeline, "_CPU_BLOCK_PX", 24 * 32 * 2)
    write(here / "beads.tif", 6)
    _, _, err = run("beads.tif", "--progress", "json")
    reports = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [report["done"] for report in reports] == [2, 4, 6, 6]
    assert reports[0]["seconds_left"] >= 0
    assert reports[0]["total"] == 6
    assert reports[-1]["event"] == "finished"


def test_only_some_frames(here, run):
    write(here / "beads.tif", 9)
    assert run("beads.tif", "--frames", "3:5")[0] == 0
    assert set(read_table("beads_locs.hdf5").frame) == {3, 4}


def test_the_same_as_in_python(here, run, model):
    import smlm_pb

    write(here / "beads.tif")
    run("beads.tif", "--threshold", "0.35")
    expected = smlm_pb.localize(
        "beads.tif", model=model, offset_adu=100, e_per_adu=0.5, psf_sigma_px=1.1, threshold=0.35
    )
    np.testing.assert_allclose(read_table("beads_locs.hdf5").x, expected.x, atol=1e-5)


@pytest.mark.parametrize(("e_per_adu", "doubtful"), [(0.5, False), (30, True)])
def test_a_wrong_gain_stands_beside_the_numbers_that_rest_on_it(here, run, e_per_adu, doubtful):
    write(here / "beads.tif", 40)
    camera = ("--offset-adu", "100", "--e-per-adu", str(e_per_adu), "--psf-sigma-px", "1.1")
    _, out, _ = run("beads.tif", camera=camera)
    assert ("camera values do not fit the noise: beads" in out) == doubtful


# -- many movies -------------------------------------------------------------------------------------------


def test_a_bad_movie_does_not_stop_the_others_and_is_named_at_the_end(here, run):
    write(here / "a.tif")
    (here / "b.tif").write_bytes(b"")
    write(here / "c.tif", seed=1)
    code, out, err = run("a.tif", "b.tif", "c.tif")
    assert code == 1
    assert {"a_locs.hdf5", "c_locs.hdf5"} <= set(names(here))
    assert "b_locs.hdf5" not in names(here)
    errors = [line for line in err.splitlines() if line.startswith("smlm-pb: error")]
    assert len(errors) == 1
    assert "b.tif is empty" in errors[0]
    assert err.splitlines()[-1] == "smlm-pb: 2 of 3 movies were localized; 1 could not be."
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["a", "c"]


def test_all_bad_is_exit_code_2(here, run):
    (here / "a.tif").write_bytes(b"")
    assert run("a.tif", "b.tif")[0] == 2
    assert names(here) == ["a.tif"]


def test_folders_and_patterns(here, run):
    for name in ("day1/img_10.tif", "day1/img_2.tif", "day2/deep/x.tif", "day2/y.tif"):
        write(here / name, 3)
    (here / "day1" / "notes.txt").write_text("none of a movie")
    for number in range(4):
        write(here / "frames" / f"f{number}.tif", 1)
    found = [str(entry.path) for entry in find_movies(["day1", "day2/**/*.tif", "frames", "day1/img_2.tif"])]
    assert found == ["day1/img_2.tif", "day1/img_10.tif", "day2/y.tif", "day2/deep/x.tif", "frames"]
    code, out, _ = run("day1", "frames", "--out", "results")
    assert code == 0
    assert "written: results/frames_locs.hdf5" in out
    assert read_table("results/frames_locs.hdf5").info.n_frames == 4
    assert {"img_2_locs.hdf5", "img_10_locs.hdf5"} <= set(names(here / "results"))


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(here):
    write(here / "cell[1].tif", 2)
    assert [(entry.path.name, entry.problem) for entry in find_movies(["cell[1].tif"])] == [("cell[1].tif", None)]


def test_results_beside_the_movies_are_not_taken_for_movies(here, run):
    write(here / "a.tif", 3)
    assert run("a.tif")[0] == 0
    assert [entry.path.name for entry in find_movies(["*"])] == ["a.tif"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [("*.tif", "No file matches *.tif"), ("empty", "holds no TIFF files"), ("gone/x.tif", "no movie at gone/x.tif")],
)
def test_arguments_that_lead_to_no_movie(here, run, argument, message):
    (here / "empty").mkdir()
    code, _, err = run(argument)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_two_movies_of_one_name_are_refused_before_any_work(here, run):
    write(here / "day1" / "cell.tif")
    write(here / "day2" / "cell.tif", seed=1)
    code, _, err = run("day1/cell.tif", "day2/cell.tif", "--out", "results")
    assert code == 2
    assert "would both be written to results/cell_locs.hdf5" in err
    assert not (here / "results").exists()


def test_resume_passes_over_what_is_done(here, run):
    write(here / "a.tif")
    assert run("a.tif")[0] == 0
    write(here / "b.tif", seed=1)
    code, out, err = run("a.tif", "b.tif", "--resume")
    assert code == 0
    assert "a.tif (1/2): was complete already" in err
    done_before, done_now = (line.split() for line in out.splitlines()[1:3])
    assert (done_before[0], done_before[3]) == ("a", "-")
    assert done_now[0] == "b"
    assert float(done_now[3]) > 0


# -- what exists, what cannot be written, what is interrupted ----------------------------------------------


def test_an_existing_result_is_kept_without_overwrite(here, run):
    write(here / "beads.tif")
    (here / "beads_locs.hdf5").write_bytes(b"precious")
    code, _, err = run("beads.tif")
    assert code == 2
    assert "exists already" in err
    assert "--overwrite" in err
    assert err.count("\n") == 1
    assert (here / "beads_locs.hdf5").read_bytes() == b"precious"
    assert run("beads.tif", "--overwrite")[0] == 0
    assert len(read_table("beads_locs.hdf5")) > 5


def test_overwrite_and_resume_exclude_each_other(here, run):
    assert run("beads.tif", "--overwrite", "--resume")[0] == 2


@pytest.mark.parametrize("out", ["file/sub", "file"])
def test_a_folder_that_cannot_be_made(here, run, out):
    write(here / "beads.tif")
    (here / "file").write_text("in the way")
    code, _, err = run("beads.tif", "--out", out)
    assert code == 2
    assert "cannot be made" in err
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_written(here, run, monkeypatch):
    from smlm_pb.formats import native

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    write(here / "beads.tif")
    monkeypatch.setattr(native, "UnfailingStream", refuse)  # root, as who tests may run, may write everywhere
    code, _, err = run("beads.tif", "--out", "out")
    assert code == 2
    assert "Permission denied" in err
    assert err.count("\n") == 1
    assert names(here / "out") == []


def test_a_full_disk(here, run, monkeypatch):
    resource = pytest.importorskip("resource")
    from smlm_pb.localization import pipeline

    monkeypatch.setattr(pipeline, "_CPU_BLOCK_PX", 24 * 32 * 2)
    write(here / "beads.tif", 12)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        code, _, err = run("beads.tif", "--threshold", "0.0001")  # nearly every pixel
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    line = err.splitlines()[-1]
    assert line.startswith("smlm-pb: error: beads_locs.work cannot be written")
    assert "--resume" in line
    assert names(here) == ["beads.tif", "beads_locs.work"]
    assert run("beads.tif", "--threshold", "0.0001", "--resume")[0] == 0
    assert set(read_table("beads_locs.hdf5").frame) == set(range(12))


def test_ctrl_c_keeps_what_is_finished_and_says_so(here, run, monkeypatch):
    from smlm_pb.localization import pipeline
    from smlm_pb.localization.work_file import WorkFile

    monkeypatch.setattr(pipeline, "_CPU_BLOCK_PX", 24 * 32 * 2)
    write(here / "a.tif", 4)
    write(here / "b.tif", 8, seed=1)
    append = WorkFile.append

    def press(self, block):
        append(self, block)
        if self.path.name.startswith("b") and block.stop == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFile, "append", press)
        code, out, err = run("a.tif", "b.tif")
    assert code == 130
    assert "a_locs.hdf5" in out  # the summary of what was finished
    assert err.splitlines()[-1] == (
        "smlm-pb: Stopped after 4 of 8 frames of movie b; they are kept in b_locs.work: continue with --resume."
    )
    assert run("a.tif", "b.tif", "--resume")[0] == 0
    assert set(read_table("b_locs.hdf5").frame) == set(range(8))


# -- wrong movies and values, each one line ----------------------------------------------------------------


def broken(kind, path):
    movie = make_movie(6)[0]
    if kind == "truncated":
        save(path, movie)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "not a TIFF":
        path.write_bytes(b"%PDF-1.4 this is a paper, not a movie" * 20)
    elif kind == "RGB":
        tifffile.imwrite(path, np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    elif kind == "NaN":
        values = movie.astype(np.float32)
        values[3, 4, 5] = np.nan
        save(path, values)
    elif kind == "zero frames":
        path.write_bytes(b"II*\0" + (8).to_bytes(4, "little") + bytes(6))
    elif kind == "1x1":
        save(path, movie[:, :1, :1])
    elif kind == "all zero":
        save(path, np.zeros_like(movie))
    elif kind == "saturated":
        save(path, np.where(movie > 120, 65535, movie).astype(np.uint16))
    else:
        save(path, movie)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("empty", (), r"is empty \(0 bytes\)"),
        ("truncated", (), "cut off|ends inside|shorter|truncated"),
        ("not a TIFF", (), "is not a TIFF file"),
        ("RGB", (), "colour"),
        ("NaN", (), "NaN or infinite"),
        ("zero frames", (), "frame|page|image"),
        ("1x1", (), "smaller than 5×5"),
        ("all zero", (), "every pixel .* is 0"),
        ("saturated", (), "saturated at 65535"),
        ("good", ("--offset-adu", "20000"), "offset 20000 ADU is above 100 %"),
        ("good", ("--em-gain", "0.5"), "--em-gain = 0.5 must be ≥ 1"),
        ("good", ("--e-per-adu", "-2"), "must be > 0"),
        ("good", ("--e-per-adu", "lots"), "'lots' is not a number"),
        ("good", ("--threshold", "1.5"), "between 0 and 1"),
        ("good", ("--psf-sigma-px", "0"), "must be > 0"),
        ("good", ("--frames", "100:200"), "has 6 frames"),
        ("good", ("--frames", "5:2"), "holds no frame"),
        ("good", ("--device", "tpu"), "not one of auto, cpu"),
        ("good", ("--device", "cuda:9"), "is not there on this machine"),
    ],
)
def test_bad_input_ends_in_one_clear_line_and_nothing_is_written(here, run, kind, options, message):
    path = here / "movie.tif"
    path.write_bytes(b"") if kind == "empty" else broken(kind, path)
    code, out, err = run("movie.tif", *options)
    assert code == 2
    assert out == ""
    assert err.startswith("smlm-pb: error: ")
    assert err.count("\n") == 1, err
    assert re.search(message, err), err
    assert len(err) > 40  # says what to do as well
    assert names(here) == ["movie.tif"]


@pytest.mark.parametrize("shape", [(1, 24, 32), (6, 25, 31), (6, 5, 64)])
def test_one_frame_and_odd_sizes_work(here, run, shape):
    whole = make_movie(6, (25, 64), per_frame=4)[0]
    save(here / "odd.tif", whole[: shape[0], : shape[1], : shape[2]])
    code, _, _ = run("odd.tif")
    assert code == 0
    info = read_table("odd_locs.hdf5").info
    assert (info.n_frames, info.height, info.width) == shape


def test_a_camera_that_cannot_be_told_must_be_given(here, run):
    rng = np.random.default_rng(0)
    save(here / "flat.tif", rng.poisson(20, (4, 20, 20)).astype(np.uint16) + 100)
    code, _, err = run("flat.tif", camera=())
    assert code == 2
    assert "--offset-adu" in err
    assert err.count("\n") == 1
    assert names(here) == ["flat.tif"]


def test_an_unknown_model_lists_the_known_ones_once(here, run):
    write(here / "a.tif")
    write(here / "b.tif", seed=1)
    code, _, err = run("a.tif", "b.tif", model="defualt")
    assert code == 2
    assert err.count("\n") == 1
    assert "Unknown model 'defualt'" in err
    assert "shipped models are" in err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"no weights"), "are damaged"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "has no weights.safetensors"),
        (lambda folder: (folder / "card.json").write_text("{"), "card .* is damaged"),
        (lambda folder: (folder / "card.json").unlink(), "holds no card.json"),
    ],
)
def test_a_damaged_model_is_one_line(here, run, damage, message):
    write(here / "beads.tif")
    damage(make_model(here / "mine"))
    code, _, err = run("beads.tif", model="mine", camera=CAMERA)
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert "beads_locs.hdf5" not in names(here)


def test_a_bug_in_one_movie_is_told_as_such_and_the_others_are_done(here, run, monkeypatch):
    from smlm_pb.localization import to_file

    write(here / "a.tif")
    write(here / "b.tif", seed=1)
    find = to_file._find

    def fail(job, *rest):
        if job.movie.name == "a":
            raise ZeroDivisionError("division by zero")
        return find(job, *rest)

    monkeypatch.setattr(to_file, "_find", fail)
    code, _, err = run("a.tif", "b.tif")
    assert code == 70
    assert "a.tif: unexpected ZeroDivisionError" in err
    assert "b_locs.hdf5" in names(here)


def test_warnings_are_one_line_each_and_in_the_report(here, run):
    write(here / "beads.tif")
    code, _, err = run("beads.tif", "--psf-sigma-px", "2.5", camera=CAMERA[:4])
    assert code == 0
    assert "smlm-pb: warning: Movie beads: the PSF of 2.5 px (given) lies outside" in err
    report = json.loads((here / REPORT_FILE).read_text())
    assert "lies outside" in report["movies"][0]["warnings"][0]
