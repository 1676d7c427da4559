"""Numbers as people of several languages type them."""

import pytest

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


@pytest.mark.parametrize("language", ["de_DE", "en_US", "fr_FR"])
def test_point_and_comma_stand_before_the_decimals_in_every_language(viewer, model, qtbot, language):
    """Qt takes one of the two for a separator of thousands: 2,5 nm became 25 nm."""
    from panel_driver import open_panel
    from qtpy.QtCore import QLocale
    from qtpy.QtWidgets import QDoubleSpinBox

    usual = QLocale()
    QLocale.setDefault(QLocale(language))
    try:
        panel = open_panel(viewer, model)
        fields = panel.findChildren(QDoubleSpinBox)
        assert len(fields) >= 6
        for field in fields:
            for typed, number in (
                ("12,5", 12.5),
                ("12.5", 12.5),
                ("2,5", 2.5),
                ("0.5", 0.5),
                ("0,7", 0.7),
                ("600", 600),
            ):
                if field.minimum() <= number <= field.maximum():
                    field.clear()
                    qtbot.keyClicks(field, typed)
                    field.interpretText()
                    assert field.value() == pytest.approx(number), (field.toolTip(), typed)
        assert panel.image.pixel_size_nm.text() == "600"
    finally:
        QLocale.setDefault(usual)


def test_thousands_are_not_taken_for_decimals(panel):
    last, offset = panel.search.last_frame, panel.camera.offset_adu
    for typed, number in (("10,000", 10_000), ("10.000", 10_000), ("1,000,000", 1_000_000), ("39", 39)):
        last.setText(typed)
        assert last.value() == number
    last.setText("3,5")
    assert "whole number" in last.fault()
    for typed, number in (("0,500", 0.5), ("100,5", 100.5), ("1.234", 1.234), (" 7 ", 7.0)):
        offset.setText(typed)
        assert offset.value() == number
    offset.setText("1,000")
    assert offset.value() is None
    assert "may mean 1000 or 1.000" in offset.fault()
    panel.run_bar.run_button.click()
    assert not panel.is_running
    assert "may mean" in panel.run_bar.status.text()
