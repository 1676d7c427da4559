"""The command line around the verbs: help, dispatch, errors, exit codes, progress, shared options."""

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest

from smlm_pb.cli import common, progress
from smlm_pb.cli import main as cli
from smlm_pb.cli.wording import as_options, options_of
from smlm_pb.errors import Cancelled, MovieError


@pytest.fixture
def verb(monkeypatch):
    """Install a verb 'fake' whose body the test chooses; returns a function that runs it."""

    def run(body, *arguments, declare=lambda parser: None):
        module = types.ModuleType("smlm_pb.cli.fake")
        module.add_parser = lambda subparsers: declare(subparsers.add_parser("fake", description="A fake."))
        module.run = body
        monkeypatch.setitem(cli.VERBS, "fake", "does what the test wants")
        monkeypatch.setitem(sys.modules, "smlm_pb.cli.fake", module)
        return cli.main(["fake", *arguments])

    return run


def raising(error):
    def body(_args):
        raise error

    return body


def python(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


# -- help and dispatch -------------------------------------------------------------------------------------


def test_help_lists_every_verb_with_its_line(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, line in cli.VERBS.items():
        assert any(name in row and line in row for row in out.splitlines()), name
    assert "130" in out  # the exit codes are explained


def test_help_imports_nothing_heavy_and_no_verb():
    code = """
import sys
from smlm_pb.cli.main import VERBS, main
main(["--help"])
heavy = {"torch", "numpy", "pandas", "scipy", "matplotlib", "pydantic", "h5py", "tifffile", "tqdm", "napari"}
verbs = {f"smlm_pb.cli.{name}" for name in VERBS}
print("LOADED", sorted((heavy | verbs) & set(sys.modules)))
"""
    assert "LOADED []" in python(code).stdout


def test_a_verb_imports_no_other_verb(verb, monkeypatch):
    for name in cli.VERBS:
        monkeypatch.delitem(sys.modules, f"smlm_pb.cli.{name}", raising=False)
    assert verb(lambda args: 0) == 0
    assert not [name for name in cli.VERBS if name != "fake" and f"smlm_pb.cli.{name}" in sys.modules]


def test_without_a_verb_the_help_is_shown_and_the_code_is_2(capsys):
    assert cli.main([]) == 2
    assert "verbs:" in capsys.readouterr().err


def test_version(capsys):
    from smlm_pb import __version__

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"smlm-pb {__version__}\n"


def test_unknown_verb_names_the_nearest(capsys):
    assert cli.main(["localise", "movie.tif"]) == 2
    err = capsys.readouterr().err
    assert "'localise'" in err
    assert "did you mean 'localize'?" in err
    assert err.count("\n") == 1


def test_wrong_option_is_one_line_that_points_to_the_help_of_the_verb(verb, capsys):
    assert verb(lambda args: 0, "--bogus") == 2
    err = capsys.readouterr().err
    assert err == "smlm-pb: error: unrecognized arguments: --bogus. See 'smlm-pb --help'.\n"


def test_options_are_never_abbreviated(verb, capsys):
    def declare(parser):
        parser.add_argument("--overwrite", action="store_true")

    assert verb(lambda args: 0, "--over", declare=declare) == 2
    assert "--over" in capsys.readouterr().err


def test_help_shows_a_default_once_and_only_where_it_says_something(verb, capsys):
    def declare(parser):
        parser.add_argument("--width-nm", type=float, default=20.0, help="width")
        parser.add_argument("--out", default=".", help="folder (default: here)")
        parser.add_argument("--seed", help="seed")

    assert verb(lambda args: 0, "--help", declare=declare) == 0
    out = capsys.readouterr().out
    assert "width (default: 20.0)" in out
    assert "folder (default: here)\n" in out
    assert "seed\n" in out


def test_variadic_options_work(verb):
    seen = {}

    def declare(parser):
        parser.add_argument("--tolerance-nm", type=common.positive_float, nargs="+")

    assert verb(lambda args: seen.update(vars(args)) or 0, "--tolerance-nm", "25", "50", declare=declare) == 0
    assert seen["tolerance_nm"] == [25.0, 50.0]


@pytest.mark.parametrize("place", ["before", "after"])
def test_global_options_stand_before_or_after_the_verb(verb, monkeypatch, place):
    seen = {}
    verb(lambda args: 0)
    options = ["--quiet", "--debug"]
    body = lambda args: seen.update(vars(args)) or 0  # noqa: E731
    monkeypatch.setattr(sys.modules["smlm_pb.cli.fake"], "run", body)
    assert cli.main([*options, "fake"] if place == "before" else ["fake", *options]) == 0
    assert seen["quiet"] is True
    assert seen["debug"] is True
    assert seen["progress"] == "auto"


def test_exit_code_of_the_verb_is_returned(verb):
    assert verb(lambda args: 1) == 1


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            MovieError("movie.tif is empty:\nsave it again."),
            2,
            "smlm-pb: error: movie.tif is empty: save it again.",
        ),
        (KeyboardInterrupt(), 130, "smlm-pb: interrupted; files that were finished are kept."),
        (
            Cancelled("12 of 40 frames are kept in a.hdf5."),
            130,
            "smlm-pb: 12 of 40 frames are kept in a.hdf5.",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/a.hdf5"),
            2,
            "the disk is full (/data/a.hdf5)",
        ),
        (
            OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
            2,
            "the disk is full;",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/data/a.hdf5"), 2, "no permission"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.tif"), 2, "a.tif; check the path"),
        (MemoryError(), 2, "not enough memory"),
        (
            ZeroDivisionError("division by zero"),
            70,
            "this is a bug in smlm-pb; run the command again with --debug",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_is_one_line_with_its_exit_code(verb, capsys, error, code, words):
    assert verb(raising(error)) == code
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("smlm-pb: ")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback_and_the_line(verb, capsys):
    assert verb(raising(MovieError("movie.tif is empty.")), "--debug") == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in body" in err
    assert err.endswith("smlm-pb: error: movie.tif is empty.\n")


def test_closed_pipe_is_no_error(tmp_path):
    code = """
import sys, types
from smlm_pb.cli import main as cli
from smlm_pb.cli.wording import as_options, options_of
fake = types.ModuleType("smlm_pb.cli.fake")
fake.add_parser = lambda subparsers: subparsers.add_parser("fake")
fake.run = lambda args: [print("row", i) for i in range(100000)] and 0
sys.modules["smlm_pb.cli.fake"] = fake
cli.VERBS["fake"] = "prints a lot"
sys.exit(cli.main(["fake"]))
"""
    script = tmp_path / "fake.py"
    script.write_text(code)
    shell = f'"{sys.executable}" "{script}" | head -n 2; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "row 0\nrow 1\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_end_signal_of_a_batch_system_ends_like_an_interrupt(verb, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert verb(lambda args: os.kill(os.getpid(), signal.SIGTERM)) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_warnings_of_the_package_are_one_line_each(verb, capsys):
    def body(_args):
        warnings.warn("The movie is darker than\nthe model knows.", UserWarning, stacklevel=2)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert verb(body) == 0
    assert capsys.readouterr().err == "smlm-pb: warning: The movie is darker than the model knows\n"


# -- progress ----------------------------------------------------------------------------------------------


def reports(capsys, mode, steps, *, quiet=False, fail=False):
    args = argparse.Namespace(quiet=quiet, progress=mode)
    try:
        with progress.show_progress(args, "movie.tif") as on_progress:
            for done, total in steps:
                on_progress(done, total)
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_json_progress_is_one_object_per_line(capsys, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    lines = [json.loads(line) for line in reports(capsys, "json", [(50, 200), (100, 200), (200, 200)]).splitlines()]
    assert [line["event"] for line in lines] == ["progress"] * 3 + ["finished"]
    assert lines[0] == {
        "event": "progress",
        "label": "movie.tif",
        "unit": "frame",
        "done": 50,
        "total": 200,
        "per_second": 50.0,
        "seconds_left": 3.0,
    }
    assert lines[-1]["done"] == lines[-1]["total"] == 200


def test_interrupted_work_says_how_far_it_came(capsys):
    last = json.loads(reports(capsys, "json", [(50, 200)], fail=True).splitlines()[-1])
    assert (last["event"], last["done"]) == ("stopped", 50)


def test_work_that_never_began_has_no_progress(capsys):
    """Of a wrong input one line is told, not that 0 of 0 frames were done."""
    assert reports(capsys, "lines", [], fail=True) == ""
    assert json.loads(reports(capsys, "json", [], fail=True))["event"] == "stopped"
    assert "stopped 5/9 frames" in reports(capsys, "lines", [(5, 9)], fail=True)


def test_lines_for_a_log_file_are_few(capsys, monkeypatch):
    clock = iter(i / 10 for i in range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    err = reports(capsys, "auto", [(i, 1000) for i in range(1, 1001)])  # not a terminal: lines
    assert 5 <= err.count("\n") <= 15
    assert "frames/s" in err
    assert " left" in err
    assert "movie.tif: finished 1000/1000 frames" in err.splitlines()[-1]


def test_bar_shows_rate_and_total(capsys):
    err = reports(capsys, "bar", [(50, 200), (200, 200)])
    assert "movie.tif" in err
    assert "200/200" in err
    assert "frames/s" in err


@pytest.mark.parametrize("mode", ["auto", "bar", "lines", "json"])
def test_quiet_is_quiet(capsys, mode):
    assert reports(capsys, mode, [(1, 2), (2, 2)], quiet=True) == ""
    progress.note(argparse.Namespace(quiet=True), "not to be seen")
    progress.note(argparse.Namespace(quiet=False), "to be seen")
    assert capsys.readouterr().err == "to be seen\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_durations_read_well(seconds, text):
    assert progress._duration(seconds) == text


# -- shared options ----------------------------------------------------------------------------------------


@pytest.fixture
def options():
    parser = cli.Parser(prog="smlm-pb fake")
    common.add_camera_options(parser)
    common.add_model_options(parser)
    common.add_device_option(parser)
    common.add_frames_option(parser)
    common.add_seed_option(parser)
    common.add_overwrite_option(parser)
    return parser


def test_camera_options_carry_the_names_of_the_python_arguments(options):
    args = options.parse_args(["--offset-adu", "100", "--e-per-adu", "0.5", "--pixel-size-nm", "110"])
    assert common.camera_arguments(args) == {"pixel_size_nm": 110.0, "offset_adu": 100.0, "e_per_adu": 0.5}


def test_defaults_leave_everything_to_the_movie(options):
    args = options.parse_args([])
    assert common.camera_arguments(args) == {}
    assert (args.model, args.threshold, args.device) == ("default", "auto", "auto")
    assert args.frames is args.seed is args.psf_sigma_px is None


@pytest.mark.parametrize(
    ("text", "frames"), [("0:10", (0, 10)), (":10", (0, 10)), ("10:", (10, None)), (":", (0, None))]
)
def test_frame_ranges(options, text, frames):
    assert options.parse_args(["--frames", text]).frames == frames


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frames", "10"], "is not A:B"),
        (["--frames", "10:5"], "holds no frame"),
        (["--frames", "-5:5"], "--frames"),
        (["--pixel-size-nm", "0"], "must be > 0"),
        (["--pixel-size-nm", "nan"], "is not a finite number"),
        (["--offset-adu", "hundred"], "'hundred' is not a number"),
        (["--threshold", "1.5"], "between 0 and 1"),
        (["--device", "gpu"], "auto, cpu, cuda"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "1.5"], "whole number"),
    ],
)
def test_wrong_values_are_named_with_the_option_and_the_rule(options, capsys, arguments, words):
    with pytest.raises(SystemExit) as leave:
        options.parse_args(arguments)
    assert leave.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("smlm-pb: error: ")
    assert words in err
    assert arguments[0] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["-1e6", "-1.5E+3", "-2.5e-3", "-.5", "-5.", "-.5e1", "-7", "-1_000"])
def test_negative_numbers_are_values_in_any_form(options, text):
    assert options.parse_args(["--offset-adu", text]).offset_adu == float(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pixel-size-nm", "-1e2"], "-1e2 must be > 0"),
        (["--threshold", "-1e-3"], "between 0 and 1"),
        (["--offset-adu", "-inf"], "-inf is not a finite number"),
        (["--offset-adu", "-nan"], "-nan is not a finite number"),
        (["--offset-adu", "-1e6e"], "'-1e6e' is not a number"),
        (["--offset-adu", "--device"], "expected one argument"),
        (["--seed", "-1e3"], "'-1e3' is not a whole number"),
    ],
)
def test_negative_numbers_that_are_impossible_are_refused_as_they_were_given(options, capsys, arguments, words):
    with pytest.raises(SystemExit):
        options.parse_args(arguments)
    assert words in capsys.readouterr().err


def _types_of_options(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _types_of_options(inner)
        elif action.option_strings and action.type in (common.finite_float, common.positive_float):
            yield parser, action


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_takes_negative_numbers_for_values(name, capsys):
    verb = cli.build_parser(name)._subparsers._group_actions[0].choices[name]
    for parser, action in _types_of_options(verb):
        count = action.nargs if isinstance(action.nargs, int) else 1
        with pytest.raises(SystemExit):  # something else is missing, or the number is impossible
            parser.parse_args([action.option_strings[0], *["-1e2"] * count, "--no-such-option"])
        err = capsys.readouterr().err
        assert "expected" not in err, (action.option_strings, err)
        if action.type is common.positive_float:
            assert "-1e2 must be > 0" in err


def test_existing_file(tmp_path: Path):
    file = tmp_path / "a.csv"
    file.touch()
    assert common.existing_file(str(file)) == file
    with pytest.raises(argparse.ArgumentTypeError, match="does not exist"):
        common.existing_file(str(tmp_path / "b.csv"))
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder"):
        common.existing_file(str(tmp_path))


# -- the words of the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give pixel_size_nm, e.g. 100.", "give --pixel-size-nm, e.g. 100."),
        ("a train.yaml is there, continue with resume=True.", "a train.yaml is there, continue with --resume."),
        ("take start='default' or device='cpu'", "take --from default or device='cpu'"),
        ("made for others (smlm_pb.training.propose_like)", "made for others (smlm-pb train --like)"),
        ("give the right number (smlm_pb.formats.read_table)", "give the right number (smlm-pb convert --n-frames)"),
        ("unknown, load(path, format=NAME): csv", "unknown, 'smlm-pb convert --from NAME': csv"),
        ("psf_sigma_px = 0 is impossible", "--psf-sigma-px = 0 is impossible"),
        ("allow overwrite=True", "allow --overwrite"),
        ("the frames of the movie", "the frames of the movie"),
        ("/data/pixel_size_nm.tif is damaged", "/data/pixel_size_nm.tif is damaged"),
        ("/pixel_size_nm/a.tif is damaged", "/pixel_size_nm/a.tif is damaged"),
        ("p.yaml: pixel_size_nm must be above 0", "p.yaml: pixel_size_nm must be above 0"),
        ("no column sigma_x", "no column sigma_x"),
    ],
)
def test_messages_speak_of_options(message, shown):
    options = {"pixel_size_nm": "--pixel-size-nm", "psf_sigma_px": "--psf-sigma-px", "frames": "--frames"}

    assert as_options(message, options | {"overwrite": "--overwrite", "resume": "--resume", "start": "--from"}) == shown


def test_options_of_a_verb():
    options = options_of(cli.build_parser("render"), "render")

    assert options["pixel_size_nm"] == "--image-pixel-nm"
    assert options["camera_pixel_size_nm"] == "--camera-pixel-size-nm"
    assert "locs" not in options
