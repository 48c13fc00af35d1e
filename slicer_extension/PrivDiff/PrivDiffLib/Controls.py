"""What several sections do with their controls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Control:
    """A button whose tooltip says what it does, or why it cannot be pressed.

    Parameters
    ----------
    widget
        The button.
    """

    def __init__(self, widget: Any) -> None:
        self._widget, self._usual = widget, widget.toolTip

    def allow(self, obstacle: str) -> None:
        """Enable it where there is no obstacle."""
        self._widget.enabled = not obstacle
        self._widget.toolTip = obstacle or self._usual


@contextmanager
def silent(widget: Any) -> Iterator[None]:
    """Change a widget without its signals: the user did not do it."""
    blocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(blocked)


def reveal(widget: Any) -> None:
    """Show a widget, and scroll to it where it lies in a scrolled area."""
    widget.visible = True
    area = widget.parentWidget()
    while area is not None and not hasattr(area, "ensureWidgetVisible"):
        area = area.parentWidget()
    if area is not None:
        area.ensureWidgetVisible(widget)


def show(label: Any, text: str) -> None:
    """Show a text, or nothing at all."""
    label.text = text
    label.visible = bool(text)


def fill(box: Any, entries: list[tuple[str, str]], chosen: str) -> None:
    """Fill a combo box with (text, data), unless it holds the same; choose by data."""
    held = [(box.itemText(index), box.itemData(index)) for index in range(box.count)]
    with silent(box):
        if held != entries:
            box.clear()
            for text, data in entries:
                box.addItem(text, data)
        index = next((at for at, entry in enumerate(entries) if entry[1] == chosen), 0)
        if entries and box.currentIndex != index:
            box.setCurrentIndex(index)


def addresses(box: Any, known: list[str]) -> None:
    """Offer addresses in an editable combo box; what was typed stays."""
    held = [box.itemText(index) for index in range(box.count)]
    if held == known:
        return
    typed = box.currentText
    with silent(box):
        box.clear()
        box.addItems(known)
        box.setEditText(typed or (known[0] if known else ""))
