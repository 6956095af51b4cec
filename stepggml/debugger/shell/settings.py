"""What `set` can change about the console: one line here is one setting."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import DebuggerError
from ..show.context import PANES

# pdb's short words whose meaning here would be another, or none.
PDB_WORDS = {
    "u": "up",
    "d": "down",
    "w": "backtrace",
    "where": "backtrace",
    "a": "info locals",
    "args": "info locals",
    "r": "finish",
    "return": "finish",
    "unt": "until",
    "cl": "delete",
    "clear": "delete",
    "ll": "list",
    "pp": "print",
    "j": "advance",
    "jump": "advance",
}


def on_off(text: str) -> bool:
    """on or off."""
    if text in ("on", "yes", "true", "1"):
        return True
    if text in ("off", "no", "false", "0"):
        return False
    raise DebuggerError(f"expected on or off, got {text!r}")


def number_from(low: int, high: int):  # noqa: ANN201
    """A parser of whole numbers in a range."""

    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise DebuggerError(f"expected a number from {low} to {high}, got {text!r}")
        return int(text)

    return parse


def page_columns(text: str) -> int:
    """Columns of the page; 0 or auto: the terminal's."""
    if text in ("0", "auto"):
        return 0
    return number_from(80, 200)(text)


def panes(text: str) -> tuple[str, ...]:
    """Which parts the view at a stop has: some of them, `on` for all, `off` for one line only."""
    words = text.replace(",", " ").split()
    if words == ["on"]:
        return PANES
    if words == ["off"]:
        return ()
    chosen = []
    for word in words:
        found = [pane for pane in PANES if pane.startswith(word)]
        if len(found) != 1:
            raise DebuggerError(f"{word!r} is not a part of the view; choose from {', '.join(PANES)}, or on, or off")
        chosen.append(found[0])
    return tuple(chosen)


def muscle(text: str) -> str:
    """gdb or pdb."""
    if text not in ("gdb", "pdb"):
        raise DebuggerError(f"expected gdb or pdb, got {text!r}")
    return text


def setting(default: Any, parse: Any, text: str) -> Any:
    """A field of Settings with its parser and what it does."""
    return field(default=default, metadata={"parse": parse, "help": text})


@dataclass
class Settings:
    """The settings, with their defaults."""

    ctx: tuple[str, ...] = setting(PANES, panes, "parts of the view at each stop: source node changes, on, off")
    ctx_lines: int = setting(8, number_from(1, 60), "source lines before and after the current one")
    edge_items: int = setting(3, number_from(1, 1000), "elements shown at each end of a dimension")
    precision: int = setting(4, number_from(1, 12), "significant digits of the numbers in tensors")
    page: int = setting(20, number_from(5, 100000), "rows of a listing before it waits for an empty line")
    width: int = setting(0, page_columns, "columns of the page, 80 to 200; auto: the terminal's")
    muscle: str = setting("gdb", muscle, "whose short commands: gdb or pdb (u d w a r cl ll pp unt mean pdb's)")
    verbose: bool = setting(False, on_off, "show where an internal error comes from")
    confirm: bool = setting(True, on_off, "ask before ending a run that is still going")

    def change(self, name: str, text: str) -> None:
        """Set one by name. Raises DebuggerError."""
        for item in fields(self):
            if item.name == name:
                setattr(self, name, item.metadata["parse"](text.strip()))
                return
        raise DebuggerError(f"no setting {name!r}")

    def rows(self) -> list[tuple[str, str, str]]:
        """Name as typed, value, and what it does."""
        rows = []
        for item in fields(self):
            rows.append((item.name.replace("_", "-"), self.text(item.name), item.metadata["help"]))
        return rows

    def text(self, name: str) -> str:
        """A setting's value as it is typed."""
        value = getattr(self, name)
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, tuple):
            return " ".join(value) or "off"
        return "auto" if name == "width" and value == 0 else str(value)


SETTING_NAMES = tuple(item.name for item in fields(Settings))
