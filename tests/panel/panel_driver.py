"""Drives the real panel as a user does."""

LIMIT_MS = 180_000
CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "pixel_size_nm": 100.0}


def open_panel(viewer, model):
    from napari_plugin.settings import remember

    remember("localization", "live_preview", False)
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    panel.model.add_folder(model)
    return panel


def end(panel, qtbot):
    if panel.is_running:
        panel.runs.cancel()
        qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)


def run_to_the_end(panel, qtbot, last_frame=None):
    if last_frame is not None:
        panel.search.last_frame.set_value(last_frame)
    panel.run_bar.run_button.click()
    assert panel.is_running
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    return panel.results.current


def start_and_wait_for_frames(panel, qtbot, n_frames=3):
    panel.run_bar.run_button.click()
    qtbot.waitUntil(lambda: panel.runs._job is None or panel.runs._job.progress().done >= n_frames, timeout=LIMIT_MS)
    assert panel.is_running


def status(panel):
    return panel.run_bar.status.text().replace(" ", "").replace("of", " of").replace("molecules", " molecules")


def errors(notes):
    return [note.message for note in notes if str(note.severity) == "error"]


def plugin_settings():
    from napari.settings import get_plugin_settings

    return get_plugin_settings("smlm-pb")
