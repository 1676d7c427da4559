"""The panel without a mouse: the order of the Tab key, shortcuts, and rows that explain themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QFormLayout, QLabel, QLayout, QScrollArea, QTabWidget, QWidget

RUN_KEYS, CANCEL_KEYS = "Ctrl+Return", "Esc"


def order_focus(panel: QWidget) -> None:
    """Let the Tab key go through all controls as they are read: from left to right, from top to bottom.

    Parameters
    ----------
    panel : QWidget
        Whose layouts tell the order.
    """
    previous: QWidget | None = None
    for widget in controls_in_order(panel):
        if previous is not None:
            QWidget.setTabOrder(previous, widget)
        previous = widget


def controls_in_order(widget: QWidget | None) -> Iterator[QWidget]:
    """The controls inside a widget that the Tab key may stop at, also on hidden tabs, in reading order."""
    if widget is None:
        return
    if isinstance(widget, QTabWidget):
        yield widget.tabBar()
        for index in range(widget.count()):
            yield from controls_in_order(widget.widget(index))
    elif isinstance(widget, QScrollArea):
        yield from controls_in_order(widget.widget())
    elif widget.focusPolicy() in (Qt.FocusPolicy.StrongFocus, Qt.FocusPolicy.WheelFocus, Qt.FocusPolicy.TabFocus):
        yield widget
    else:
        yield from _controls_of_layout(widget.layout())


def add_shortcuts(panel: QWidget, tabs: QTabWidget, run: Callable[[], None], cancel: Callable[[], None]) -> None:
    """Keys that work wherever the keyboard is inside the panel: Run, Cancel, and a number for every tab.

    Parameters
    ----------
    panel : QWidget
        Where they work; outside, the same keys keep the meaning that napari gives them.
    tabs : QTabWidget
        Tabs that ``Alt+1`` and so on open.
    run, cancel : callable
        Called by the keys.
    """

    def add(keys: str, action: Callable[[], None]) -> None:
        shortcut = QShortcut(QKeySequence(keys), panel)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(action)

    add(RUN_KEYS, run)
    add(CANCEL_KEYS, cancel)
    for index in range(tabs.count()):
        keys = f"Alt+{index + 1}"
        add(keys, lambda index=index: tabs.setCurrentIndex(index))  # type: ignore[misc]
        tabs.setTabToolTip(index, f"{tabs.tabText(index)} ({keys})")


def explain_rows(panel: QWidget) -> None:
    """Give the label of every row the tooltip of its field, and every field the label's words for screen readers.

    Parameters
    ----------
    panel : QWidget
        Whose forms are gone through.
    """
    for form in panel.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            label_item = form.itemAt(row, QFormLayout.ItemRole.LabelRole)
            field_item = form.itemAt(row, QFormLayout.ItemRole.FieldRole)
            label = None if label_item is None else label_item.widget()
            if not isinstance(label, QLabel) or field_item is None:
                continue
            field = field_item.widget()
            parts = list(_controls_of_layout(field_item.layout())) if field is None else [field, *_inside(field)]
            explained = [part for part in parts if part.toolTip()]
            if explained and not label.toolTip():
                label.setToolTip(explained[0].toolTip())
            for part in parts:
                if not part.accessibleName():
                    part.setAccessibleName(label.text())


def _inside(field: QWidget) -> list[QWidget]:
    return list(_controls_of_layout(field.layout()))


def _controls_of_layout(layout: QLayout | None) -> Iterator[QWidget]:
    for index in range(0 if layout is None else layout.count()):
        item: Any = layout.itemAt(index)  # type: ignore[union-attr]
        if item.widget() is not None:
            yield from controls_in_order(item.widget())
        else:
            yield from _controls_of_layout(item.layout())
