"""Looks: nothing cut off, everything explained and reached by keys, readable in every theme."""

import itertools

import numpy as np
import pytest
from panel_driver import LIMIT_MS, run_to_the_end

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_nothing_is_cut_off_on_a_small_screen(panel, qtbot):
    from qtpy.QtWidgets import QLabel, QPushButton

    run_to_the_end(panel, qtbot, last_frame=5)
    panel.resize(390, 690)  # what 1280×800 leave for a dock
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        page = panel.tabs.currentWidget().widget()
        panel.grab()  # lays everything out
        assert page.minimumSizeHint().width() <= 370, panel.tabs.tabText(index)
        for button in page.findChildren(QPushButton):
            if button.isVisibleTo(page):
                assert button.width() >= button.sizeHint().width() - 1, button.text()
        for label in page.findChildren(QLabel):
            if label.isVisibleTo(page) and not label.wordWrap():
                assert label.width() >= label.sizeHint().width() - 1, label.text()
    assert panel.minimumSizeHint().height() < 690


def test_notes_do_not_squeeze_the_rows_above(panel, qtbot):
    panel.resize(390, 690)
    panel.grab()

    def places():
        fields = (panel.search.psf_sigma_px, panel.search.first_frame, panel.search.region, panel.search.threshold)
        return [field.mapTo(panel.search, field.rect().topLeft()).y() for field in fields]

    before = places()
    panel.search.preview_note.say("Frame 99: 264 molecules, precision 29 nm, threshold 0.45, expected Jaccard 0.83")
    qtbot.wait(50)
    panel.grab()
    assert places() == before


def test_notes_take_no_more_room_than_their_text(panel, qtbot):
    panel.resize(390, 690)
    panel.model.description.say("Any 2-D movie with a PSF width of 0.8 to 2 px, and some more words about it. " * 3)
    for _ in range(3):
        qtbot.wait(20)
        panel.grab()
    note = panel.model.description
    assert note.height() == note.heightForWidth(note.width())


def test_long_names_of_movies_are_broken_into_lines(panel, viewer, qtbot):
    from qtpy.QtCore import QEvent, QPoint, Qt
    from qtpy.QtGui import QHelpEvent
    from qtpy.QtWidgets import QToolTip

    name = "2026-11-21_COS7_tubulin_AF647_cell3_30ms_20000frames_MMStack_Pos0" + "x" * 80
    panel.resize(390, 690)
    for text in (f"Saved {name}_locs.hdf5.", f'Written: <a href="file:///{name}.html">{name}&amp;.html</a>'):
        panel.run_bar.status.say(text, "error")
        assert panel.run_bar.status.text() == text
        for _ in range(3):
            qtbot.wait(20)
            panel.grab()
        assert panel.minimumSizeHint().width() <= 390  # otherwise it is cut off at both ends
        note = panel.run_bar.status
        assert note.height() >= note.heightForWidth(note.width()) > 3 * note.fontMetrics().height()
    viewer.layers["filaments"].name = name
    index = panel.movie.findText(name)
    assert panel.movie.itemData(index, Qt.ItemDataRole.ToolTipRole) == name
    panel.movie.event(QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), panel.movie.mapToGlobal(QPoint(5, 5))))
    assert name in QToolTip.text()


def test_every_control_explains_itself_and_is_reached_by_the_tab_key(panel, qtbot):
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QFormLayout, QLineEdit, QSlider, QWidget

    def is_inner(widget):
        return isinstance(widget.parent(), (QAbstractSpinBox, QComboBox, QLineEdit))

    run_to_the_end(panel, qtbot, last_frame=5)
    panel.resize(390, 690)
    controls = (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QSlider)
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        panel.grab()  # lays everything out
        title = panel.tabs.tabText(index)
        chain, widget = [], panel.movie
        while panel.isAncestorOf(widget) and widget not in chain:
            chain.append(widget)
            widget = widget.nextInFocusChain()
        reached = [
            one
            for one in chain
            if one.isVisibleTo(panel)
            and one.focusPolicy() in (Qt.FocusPolicy.StrongFocus, Qt.FocusPolicy.WheelFocus, Qt.FocusPolicy.TabFocus)
            and not is_inner(one)
            and one.focusProxy() is None
        ]
        page = panel.tabs.currentWidget().widget()
        zones = [page.isAncestorOf(one) + 2 * panel.run_bar.isAncestorOf(one) for one in reached]
        assert [zone for zone, _ in itertools.groupby(zones)] in ([0, 1, 2], [0, 2])  # head, tab, foot
        rows = [(one.mapTo(panel, QPoint(0, 0)).y(), type(one).__name__, one.toolTip()[:20]) for one in reached]
        steps = zip(zones, zones[1:], itertools.pairwise(rows), strict=False)
        wrong = [pair for zone, other, pair in steps if zone == other and pair[1][0] < pair[0][0] - 10]
        assert not wrong, (title, wrong)
        for control in page.findChildren(QWidget):
            if isinstance(control, controls) and control.isVisibleTo(page) and not is_inner(control):
                assert control.toolTip(), (title, control.accessibleName())
                assert control in reached or not control.isEnabled(), (title, control.toolTip())
        for form in page.findChildren(QFormLayout):
            for row in range(form.rowCount()):
                label = form.itemAt(row, QFormLayout.ItemRole.LabelRole).widget()
                assert label.toolTip(), (title, label.text())


def test_every_row_has_a_tooltip_and_can_be_reached_by_keys(panel):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QComboBox, QLineEdit, QPushButton, QSlider

    kinds = (QLineEdit, QComboBox, QCheckBox, QAbstractSpinBox, QSlider, QPushButton)
    for kind in kinds:
        for widget in panel.findChildren(kind):
            if widget.objectName().startswith("qt_") or isinstance(widget.parent(), QAbstractSpinBox | QComboBox):
                continue
            assert widget.toolTip(), f"{type(widget).__name__} {widget.accessibleName() or widget.objectName()}"
            assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus


def test_shortcuts_open_tabs_run_and_cancel(panel, qtbot):
    from qtpy.QtGui import QShortcut

    keys = {shortcut.key().toString(): shortcut for shortcut in panel.findChildren(QShortcut)}
    keys["Alt+3"].activated.emit()
    assert panel.tabs.tabText(panel.tabs.currentIndex()) == "Filter"
    assert "Alt+3" in panel.tabs.tabToolTip(2)
    panel.search.last_frame.set_value(3)
    keys["Ctrl+Return"].activated.emit()
    assert panel.is_running
    keys["Ctrl+Return"].activated.emit()  # a second run is not begun
    keys["Esc"].activated.emit()
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)


def test_help_tells_the_steps_and_leads_to_the_documentation(panel, qtbot):
    from qtpy.QtWidgets import QMessageBox

    panel.help_button.click()
    (box,) = panel.findChildren(QMessageBox)
    assert "Run" in box.text()
    assert 'href="' in box.text()
    box.close()


def test_help_of_an_installed_package_leads_to_its_address_or_explains_itself(monkeypatch, tmp_path):
    from email.message import Message

    from napari_plugin import help as panel_help

    installed = Message()
    installed["Project-URL"] = "Documentation, https://example.org/docs?a=1&b=2"
    monkeypatch.setattr(panel_help, "metadata", lambda name: installed)
    assert 'href="https://example.org/docs?a=1&amp;b=2"' in panel_help._link()
    monkeypatch.setattr(panel_help, "metadata", lambda name: Message())
    monkeypatch.setattr(panel_help, "__file__", str(tmp_path / "site-packages" / "napari_plugin" / "help.py"))
    assert "smlm-pb --help" in panel_help._link()  # no address, no checkout: nothing leads nowhere
    assert "href" not in panel_help._link()


def test_warnings_can_be_read_in_every_theme(viewer):
    from napari.utils.theme import available_themes

    from napari_plugin.theme import _contrast, readable_color, theme_color

    for theme in available_themes():
        if theme == "system":
            continue
        viewer.theme = theme
        for level in ("warning", "error"):
            color = readable_color(viewer, level)
            assert _contrast(color, theme_color(viewer, "background")) >= 4.5 or color == theme_color(viewer, "text")


def test_figures_are_sharp_on_fine_screens(viewer, qtbot, monkeypatch):
    from matplotlib.figure import Figure

    from napari_plugin import figure_picture

    drawn, real = [], figure_picture.draw

    def draw(*args, **options):
        drawn.append(real(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(figure_picture, "draw", draw)
    hints = []
    for ratio in (1.0, 2.0):
        picture = figure_picture.FigurePicture(viewer, "a figure")
        qtbot.addWidget(picture)
        monkeypatch.setattr(picture, "devicePixelRatioF", lambda ratio=ratio: ratio)
        with qtbot.waitSignal(picture.appeared, timeout=LIMIT_MS):
            picture.show_figure(Figure)
        hints.append(picture.sizeHint())
        picture.close_task()
    assert drawn[1].shape[:2] == tuple(2 * side for side in drawn[0].shape[:2])
    assert hints[0] == hints[1]


def test_histogram_is_moved_by_mouse_and_keys(viewer, qtbot):
    from qtpy.QtCore import QPoint, Qt

    from napari_plugin.histogram import RangeHistogram

    histogram = RangeHistogram(viewer, logarithmic=True)
    qtbot.addWidget(histogram)
    histogram.resize(212, 52)
    histogram.set_values(np.geomspace(10, 1000, 1001))
    moved = []
    histogram.range_changed.connect(lambda low, high: moved.append((low, high)))
    qtbot.mousePress(histogram, Qt.MouseButton.LeftButton, pos=QPoint(56, 20))  # a quarter of the axis
    qtbot.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=QPoint(56, 20))
    low, high = moved[-1]
    assert low == pytest.approx(10 * 100**0.25, rel=0.05)
    assert high is None
    qtbot.keyClick(histogram, Qt.Key.Key_Up)
    for _ in range(10):
        qtbot.keyClick(histogram, Qt.Key.Key_Left)
    assert moved[-1][1] == pytest.approx(1000 * 100**-0.05, rel=0.05)
    qtbot.mouseDClick(histogram, Qt.MouseButton.LeftButton, pos=QPoint(100, 20))
    assert histogram.limits == (None, None)
    for values in (np.zeros(0), np.full(5, 3.0), np.array([np.nan, 1.0])):
        histogram.set_values(values)
        histogram.grab()
