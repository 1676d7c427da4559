"""The report: one file that needs nothing else, holds what it promises, and tells what it cannot."""

import re
import tracemalloc
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile
from hand_made_model import make_model, make_movie

import smlm_pb
from smlm_pb.analysis.drift import Drift, apply_drift
from smlm_pb.analysis.report import build_report, write_report
from smlm_pb.analysis.report_parts import number
from smlm_pb.analysis.report_pictures import _typical_frames
from smlm_pb.analysis.report_svg import _VARIABLES, FIRST, drawing
from smlm_pb.cli import main as cli
from smlm_pb.errors import MovieError, OutputError
from smlm_pb.localizations import Localizations, MovieInfo

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@pytest.fixture(scope="module")
def scene(model):
    """A movie, what was found in it, and the truth."""
    movie, frame, x, y = make_movie(40, seed=2)
    truth = Localizations(
        {"frame": frame, "x": x, "y": y, "photons": np.full(len(x), 2500.0)}, MovieInfo(40, 24, 32, 100.0)
    )
    locs = smlm_pb.localize(movie, model=model, **CAMERA, pixel_size_nm=100)
    return movie, locs, truth


@pytest.fixture(scope="module")
def page(scene):
    movie, locs, truth = scene
    return build_report(locs, movie=movie, truth=truth, title="Cell <3> & friends")


class _Checker(HTMLParser):
    """Every element closed, every address inside the page, every identity once."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [value for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page):
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


# -- one file ----------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_needs_nothing_else(page):
    checker = checked(page)
    assert len(checker.ids) == len(set(checker.ids))
    for address in checker.addresses:
        assert address.startswith(("data:image/png;base64,", "#")), address[:80]
        if address.startswith("#"):
            assert address[1:] in checker.ids
    for reference in re.findall(r"url\(#?([^)]*)\)", page):
        assert reference in checker.ids
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_figures_take_their_colours_from_the_page(page):
    for placeholder in _VARIABLES:
        assert placeholder not in page
    for variable in _VARIABLES.values():
        assert f"{variable[4:-1]}:" in page  # declared in the style sheet
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_a_figure_is_good_xml():
    with drawing("one", 'a "figure" of <x> & y') as one:
        one.axes.plot([0, 1], [0, 1], color=FIRST)
        one.axes.set(xlabel="x < y & z")
    ET.fromstring(one.svg.replace("xlink:href", "href"))
    assert "var(--first)" in one.svg


def test_text_of_others_cannot_break_the_page(scene):
    _, locs, _ = scene
    evil = locs.with_provenance({"step": "<script>alert(1)</script>", "note": "</pre><b>", "warnings": ["<i>look</i>"]})
    page = build_report(evil, title="<script>")
    checked(page)
    assert "<script" not in page
    assert "&lt;i&gt;look&lt;/i&gt;" in page


# -- what it holds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "heading",
    ["Image", "Movie", "Molecules", "Over time", "Precision and resolution", "What to expect", "How it was made"],
)
def test_sections(page, heading):
    assert f"<h2>{heading}</h2>" in page


def test_the_figures_are_those_of_the_table(page, scene):
    _, locs, truth = scene
    assert "Cell &lt;3&gt; &amp; friends" in page
    assert f"{len(locs)} localizations" in page
    expected = locs.provenance[-1]["threshold"]
    assert f"{expected['threshold']:.3f} (the best for the expected Jaccard index)" in page
    assert number(expected["jaccard"]) in page
    assert f"{number(float(np.median(locs.derived('sigma_nm'))))} <small>nm</small>" in page
    score = smlm_pb.evaluate(locs, truth).at(100)
    assert f"<b>{number(score.jaccard)}</b>" in page
    for name in ("photons (e⁻)", "stated precision σ (nm)", "background (e⁻/px)", "localizations per frame"):
        assert name in page


def test_the_movie_is_shown_with_what_was_found(page):
    assert page.count('class="found"') >= 6
    assert page.count('class="true"') >= 6
    assert "circles: found" in page


def test_the_complete_history_is_there(page, scene):
    _, locs, _ = scene
    step = locs.provenance[-1]
    assert step["movie"]["fingerprint"] in page
    assert step["model"]["sha256"] in page
    assert "Complete record (JSON)" in page


def test_warnings_come_first_and_only_once(scene):
    _, locs, _ = scene
    text = "Movie x: the PSF lies outside."
    page = build_report(locs.with_provenance({"step": "filter", "warnings": [text, text]}))
    assert page.count(f"<li>{text}</li>") == 1
    assert page.index("Look at this first") < page.index('class="tiles"')


def test_no_warnings_is_said():
    assert "No warnings" in build_report(plain(localized=True))


def plain(n=300, *, localized=False, pixel_size_nm=100.0, **more):
    rng = np.random.default_rng(0)
    columns = {
        "frame": np.sort(rng.integers(0, 100, n)),
        "x": rng.uniform(0, 30, n),
        "y": rng.uniform(0, 30, n),
        "photons": rng.gamma(5, 200, n),
        "sigma_x": rng.uniform(0.1, 0.2, n),
        "sigma_y": rng.uniform(0.1, 0.2, n),
        **more,
    }
    steps = [{"step": "localize", "warnings": []}] if localized else []
    return Localizations(columns, MovieInfo(100, 31, 31, pixel_size_nm, "plain"), steps)


def test_linked_molecules_are_called_blinks_and_keep_their_precision(scene):
    from smlm_pb.analysis import link

    single = plain(3000)
    linked = link(single)
    page = build_report(linked, unlinked=single)
    checked(page)
    assert f"{linked['x'].size:,}".replace(",", "\u202f") + " blinks" in page
    assert "The molecules are linked; NeNA" in build_report(linked)


def test_drift_is_drawn_and_refusal_is_told():
    path = np.linspace(-50, 50, 100)
    drift = Drift(path, -path, "kernel", True, "", 1.5, 0.1, 0.01, np.stack([path, -path], 1), {"pixel_size_nm": 100.0})
    corrected = apply_drift(plain(), drift)
    for page in (build_report(corrected, drift=drift), build_report(corrected)):  # the table itself keeps the path
        checked(page)
        assert "100 nm along x" in page
        assert "drift-" in page
    refused = {"step": "drift", "accepted": False, "reason": "too little to see"}
    assert "was not corrected: too little to see" in build_report(plain().with_provenance(refused))
    assert "<h2>Drift</h2>" not in build_report(plain())


# -- what it cannot tell -----------------------------------------------------------------------------------


def test_without_a_pixel_size_it_says_so():
    page = build_report(plain(pixel_size_nm=None))
    checked(page)
    assert "pixel size unknown" in page
    assert "There is no image" in page


def test_a_bare_table():
    columns = {"frame": [0, 1, 2], "x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}
    page = build_report(Localizations(columns, MovieInfo(3, 8, 8, 100.0, "bare")))
    checked(page)
    assert "3 localizations" in page
    assert "<h2>What to expect</h2>" not in page


def test_an_empty_table(scene):
    movie, locs, truth = scene
    page = build_report(locs.select(slice(0, 0)), movie=movie, truth=truth)
    checked(page)
    assert "no molecules" in page


def test_another_movie_is_refused(scene):
    _, locs, _ = scene
    with pytest.raises(MovieError, match="made from"):
        build_report(locs, movie=make_movie(3, size=(40, 40))[0])


def test_a_text_table_takes_its_field_from_the_movie(scene):
    movie, _, _ = scene
    columns = {"frame": [0, 5], "x": [3.0, 9.0], "y": [2.0, 4.0]}
    locs = Localizations(columns, MovieInfo(6, 6, 11, 100.0, "text"))
    page = build_report(locs, movie=movie)
    checked(page)
    assert "40 frames of 24 × 32 px" in page


def test_frames_beyond_the_movie_need_no_memory():
    astray = Localizations({"frame": [0, 1, 1, 2, 4 * 10**9], "x": np.ones(5), "y": np.ones(5)}, MovieInfo(3, 8, 8))
    tracemalloc.start()
    try:
        assert _typical_frames(astray, 0, 3) == [0, 1, 2]
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_large_fields_are_drawn_with_larger_pixels_and_a_detail():
    rng = np.random.default_rng(0)
    n = 500
    columns = {"frame": np.arange(n), "x": rng.uniform(300, 305, n), "y": rng.uniform(0, 511, n)}
    page = build_report(Localizations(columns, MovieInfo(n, 512, 512, 100.0, "large")))
    checked(page)
    assert "pixels of 32 nm" in page
    assert 'class="box"' in page
    assert len(page) < 3_000_000


# -- files -------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_or_left_half_written(tmp_path, monkeypatch):
    target = write_report(plain(), tmp_path / "report.html")
    before = target.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_report(plain(), target)
    monkeypatch.setattr("pathlib.Path.write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OutputError, match="No space left"):
        write_report(plain(), target, overwrite=True)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_command(tmp_path, scene, model, monkeypatch, capsys):
    movie, locs, truth = scene
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("beads.tif", movie, photometric="minisblack", metadata={"axes": "TYX"})
    locs.save("beads_locs.hdf5")
    truth.save("truth.csv")
    assert cli.main(["report", "beads_locs.hdf5", "--movie", "beads.tif", "--truth", "truth.csv", "--quiet"]) == 0
    assert capsys.readouterr().out == "beads_locs_report.html\n"
    page = (tmp_path / "beads_locs_report.html").read_text(encoding="utf-8")
    checked(page)
    assert "Comparison with the truth" in page
    assert cli.main(["report", "beads_locs.hdf5"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["report", "beads_locs.hdf5", "--out", "b.html", "--repeatability"]) == 2
    assert "--movie" in capsys.readouterr().err
    assert cli.main(["report", "beads_locs.hdf5", "--out", "c.html", "--movie", "nothing.tif"]) == 2
    assert not (tmp_path / "c.html").exists()


def test_photon_splitting_goes_into_the_report(scene):
    from test_photon_splitting import halves

    from smlm_pb.analysis.photon_splitting import compare_halves

    _, locs, _ = scene
    page = build_report(locs, repeatability=compare_halves(*halves(stated_px=0.03)))
    checked(page)
    assert "<h2>Photon splitting</h2>" in page
    assert "repeatability (photon splitting)" in page


# -- the table against its movie -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(scene, model):
    """The digital twin and the residuals of the scene."""
    movie, locs, _ = scene
    twin = smlm_pb.analysis.digital_twin(locs, model=model, n_frames=6, by=())
    return twin, smlm_pb.analysis.residual_map(locs, movie, max_frames=10)


def test_twin_and_residuals_are_shown(scene, judged):
    movie, locs, _ = scene
    twin, residuals = judged
    page = build_report(locs, movie=movie, twin=twin, residuals=residuals)
    checker = checked(page)
    assert len(checker.ids) == len(set(checker.ids))
    assert "What errors cost (digital twin)" in page
    assert "Jaccard index of the digital twin" in page
    assert "What is left over" in page
    assert "suspected missed" in page
    assert escape(residuals.advice()) in page
    for sentence in twin.budget.advice() or [twin.advice()]:
        assert escape(sentence) in page
    assert 'aria-label="mean residual of the movie"' in page


def test_without_them_nothing_is_said(page):
    assert "digital twin" not in page
    assert "What is left over" not in page


def test_every_kind_of_suspicion_is_marked(scene, judged):
    _, locs, _ = scene
    suspects = Localizations(
        {"frame": [0, 0, 1], "x": [3.0, 4, 5], "y": [6.0, 7, 8], "suspicion": [1, 2, 3], "score": [6.0, -1, 7]},
        locs.info,
    )
    page = build_report(locs, residuals=replace(judged[1], suspects=suspects))
    assert 'class="found" cx="3.0" cy="6.0"' in page
    assert '<path class="true" d="M3.3 7.0' in page
    assert '<rect class="merged" x="4.2" y="7.2"' in page


def test_checks_need_a_movie(scene, tmp_path, capsys):
    _, locs, _ = scene
    locs.save(tmp_path / "a_locs.hdf5")
    for options, named in ((["--twin", "--residuals"], "--residuals, --twin"), (["--full"], "--full")):
        assert cli.main(["report", str(tmp_path / "a_locs.hdf5"), *options]) == 2
        assert f"{named}: a movie is needed" in capsys.readouterr().err


def test_command_with_residuals(scene, tmp_path):
    movie, locs, _ = scene
    tifffile.imwrite(tmp_path / "a.tif", movie, photometric="minisblack", metadata={"axes": "TYX"})
    locs.save(tmp_path / "a_locs.hdf5")
    options = ["--movie", str(tmp_path / "a.tif"), "--residuals", "-q"]
    assert cli.main(["report", str(tmp_path / "a_locs.hdf5"), *options]) == 0
    assert "What is left over" in (tmp_path / "a_locs_report.html").read_text(encoding="utf-8")
