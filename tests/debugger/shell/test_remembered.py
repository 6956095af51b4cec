"""What the shell remembers: each owner changes its own things only."""

from __future__ import annotations

import pytest

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.shell.remembered import Displays, SeenViews, UserWords
from stepggml.debugger.show.style import Line


def test_displays_views_and_bookmarks_have_owners() -> None:
    displays = Displays()
    assert [displays.add("a"), displays.add("b")] == [1, 2]
    with pytest.raises(DebuggerError, match="displayed are 1, 2"):
        displays.remove([1, 3])
    displays.remove([1])
    assert list(displays) == [2]

    views = SeenViews()
    with pytest.raises(DebuggerError, match="no stop has been shown"):
        views.look(-1)
    for i in range(3):
        views.add([Line(str(i))])
    assert [str(views.look(-1)[0]), str(views.look(-9)[0]), str(views.look(1)[0])] == ["1", "0", "1"]

    words = UserWords()
    words.alias("a", "b x")
    words.alias("b", "a")
    assert words.expand("a y") == "a x y"  # a circle ends where it began
    assert words.forget("a") and not words.forget("a")
