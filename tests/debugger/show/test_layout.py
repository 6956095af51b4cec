"""Documents on pages of any width: what gives way, and in which order."""

from __future__ import annotations

import numpy as np
import pytest

from stepggml.debugger.show.document import (
    Bar,
    Block,
    BufferMap,
    Cells,
    Column,
    Document,
    Fold,
    Heading,
    HeatMap,
    Histogram,
    Life,
    Named,
    Paragraph,
    Pieces,
    Separator,
    as_blocks,
    table,
)
from stepggml.debugger.show.layout import lines_of
from stepggml.debugger.show.style import Line, elide

COLUMNS = (
    Column("name", least=12),
    Column("op"),
    Column("state", priority=2, least=6, middle=False),
    Column("place", priority=5),
    Column("made by", priority=7),
)
NAME = "model/h11/attn/c_attn/w"
ROWS = [
    (
        Named(Line(("name", NAME)), Line(("dim", "layer.c_attn_attn_w"))),
        "MUL_MAT",
        "NOT-COMPUTED",
        "compute +24,640",
        "x.py:12",
    ),
    ("b", "ADD", "LIVE", "compute +0", "x.py:9"),
]


def shown(content: Block | list[Block], width: int) -> list[str]:
    """The lines as text, each checked to fit."""
    lines = [str(line) for line in lines_of(as_blocks(content), width)]
    assert all(len(line) <= width for line in lines), lines
    return lines


def test_what_gives_way_on_a_narrow_page() -> None:
    """First what else a thing is called and the ends of texts, then columns by priority, names last of all."""
    listing = table(COLUMNS, ROWS)
    head, row, _ = shown(listing, 110)
    assert head.split() == ["name", "op", "state", "place", "made", "by"]
    assert row.split()[:2] == [NAME, "layer.c_attn_attn_w"] and "NOT-COMPUTED" in row
    head, row, _ = shown(listing, 80)
    assert "layer.c" not in row and NAME in row and "NOT-COMPUTED" in row and head.split()[-1] == "by"
    head, row, _ = shown(listing, 62)
    assert "NOT-C" in row and "NOT-COMPUTED" not in row and head.split()[-1] == "place"
    head, row, _ = shown(listing, 36)
    assert head.split() == ["name", "op"] and NAME in row
    head, row, _ = shown(listing, 26)
    assert head.split() == ["name", "op"] and row.split() == [elide(NAME, 15), "MUL_MAT"]
    for width in range(12, 26):
        assert shown(listing, width)[1].startswith("  mo")


def test_names_are_cut_in_the_middle_and_keep_their_layer() -> None:
    assert elide("abcdefghij", 7) == "abc…hij"
    assert elide("model/h11/attn/c_attn/w", 16) == "model/h11/…ttn/w"
    assert elide("blk.17.ffn_norm.weight", 16) == "blk.17.…m.weight"
    assert elide("abc", 2) == "ab"
    line = Line(("name", "abcdef"), ("dim", "ghij")).elide(7)
    assert str(line) == "abc…hij" and line.spans == [("name", "abc"), ("dim", "…"), ("dim", "hij")]


def test_numbers_stand_to_the_right() -> None:
    lines = shown(table((Column("n", "r"), Column("x")), [("1", "a"), ("222", "b")]), 80)
    assert lines == ["    n  x", "    1  a", "  222  b"]


def test_headings() -> None:
    assert shown(Heading("title", ("a" * 100,)), 80)[0].endswith("…")
    assert len(shown(Heading("t"), 80)[0]) == 80
    assert shown(Heading("t", ("", "x", "", "y")), 30)[0].startswith("─[ t ]─ x · y ──")
    tail = Heading("t", ("made by f",), tail=(" ← g", " ← h"))
    assert "← g ← h" in shown(tail, 60)[0] and "← g" in shown(tail, 29)[0] and "← h" not in shown(tail, 29)[0]
    assert (
        "title of a" in shown(Heading("title of a" + "x" * 90, ("fact",)), 60)[0]
        and "fact" in shown(Heading("title of a" + "x" * 90, ("fact",)), 60)[0]
    )


def test_text_is_wrapped_and_pieces_go_below() -> None:
    assert shown(Paragraph("one two three", indent=2), 10) == ["  one two", "    three"]
    pieces = Pieces((Line("one"), Line("two")), hanging=2)
    assert shown(pieces, 10) == ["  one  two"] and shown(pieces, 9) == ["  one", "    two"]
    assert shown([Separator(), "text\nmore"], 5) == ["─" * 5, "text", "more"]
    assert shown(Fold("more", (Line("inside"),)), 20) == ["more", "inside"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_pictures_fit(width: int) -> None:
    lives = (Life("a", "ADD", 0, 500, 0, 3), Life("b", "MUL", 500, 1000, 2, 9))
    picture = shown(BufferMap(lives, 0, 9, 4), width)
    assert "1,000 B" in picture[-1][:60] and "▲" in picture[-2]
    matrix = np.arange(600.0).reshape(300, 2)
    assert "ne0 to the right" in shown(HeatMap(matrix), width)[-1][:30]
    assert len(shown(Histogram([1, 0, 5], [0.0, 1.0, 2.0, 3.0], 6, n_nan=1), width)) == 4
    shown(Cells((((0, Line("x" * 300)), (32, Line("payload"))), ((368, Line("free")),))), width)
    assert shown(table((Column(""),), [(Bar(1, 1000),)]), width) == ["  █░░░░░░░░░░░░░░░   0.1 %"]


def test_a_document_carries_its_data() -> None:
    document = Document(["text", Heading("t")], {"n": 1})
    assert document.data == {"n": 1} and isinstance(document[0], Line) and len(as_blocks([document, "x"])) == 3
