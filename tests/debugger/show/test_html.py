"""Any document as HTML and as SVG: well-formed, escaped, with its pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from stepggml.debugger.show import html, png, svg
from stepggml.debugger.show.document import (
    Bar,
    Block,
    BufferMap,
    Cells,
    Column,
    Fitted,
    Fold,
    Heading,
    HeatMap,
    Histogram,
    Life,
    Named,
    Paragraph,
    Pieces,
    Separator,
    table,
)
from stepggml.debugger.show.style import STYLES, Line

EVIL = "<script>alert('\x1b[2J')</script>"
LIVES = (Life(EVIL, "ADD", 0, 500, 0, 3), Life("b", "MUL", 500, 1000, 2, 9))
BLOCKS: list[Block] = [
    Heading(EVIL, ("a fact", ("LIVE", EVIL)), tail=(" ← caller",)),
    Line(*((style, style + EVIL) for style in STYLES)),
    Paragraph(f"some words {EVIL}"),
    Pieces((Line("one"), Line("two"))),
    Separator(),
    table(
        (Column("name"), Column("n", "r"), Column("used"), Column("place", priority=3)),
        [(Named(Line(("name", EVIL)), Line("alias")), "12", Bar(1, 4), ("address", "0x7f"))],
    ),
    Fold("more " + EVIL, (Line("inside"),), is_open=True),
    HeatMap(np.array([[1.0, -2.0, np.nan], [0.0, np.inf, 3.0]]), EVIL),
    Histogram([1, 0, 5], [0.0, 1.0, 2.0, 3.0], 6),
    BufferMap(LIVES, 0, 9, 4),
    Cells((((0, Line("header")), (32, Line(EVIL))),)),
    Fitted(lambda width: [Line(f"{width} columns {EVIL}")]),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_every_block_has_a_page(block: Block) -> None:
    """Parsed as XML, which forgives nothing."""
    page = html.document_html([block])
    tree = ElementTree.fromstring(page.replace("<details open>", '<details open="">'))
    words = "".join(tree.itertext())
    assert words.strip() or isinstance(block, Separator)
    assert not {element.tag.rpartition("}")[2] for element in tree.iter()} & {"script", "a", "img", "link"}
    assert "\x1b" not in page


def test_a_browser_gets_every_column() -> None:
    page = html.document_html([BLOCKS[5]])
    for word in ("place", "0x7f", "alias", "25.0 %", "text-align:right"):
        assert word in page


def test_an_open_fold_and_its_title() -> None:
    page = html.document_html([BLOCKS[6]])
    assert "<details open><summary>more &lt;script" in page and "inside" in page


@pytest.mark.parametrize("width", [60, 200])
def test_a_document_as_svg(width: int) -> None:
    """What the terminal shows, each piece as wide as its characters."""
    tree = ElementTree.fromstring(svg.document_svg(BLOCKS, EVIL, width))
    texts = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert any("some words" in text for text in texts) and any("columns" in text for text in texts)
    assert float(tree.get("width")) <= width * svg.CELL_WIDTH + 2 * svg.MARGIN + 1


def test_pictures_have_a_shape_for_each_element() -> None:
    heat = BLOCKS[7]
    squares = re.findall("<rect ", svg.heat_map_svg(heat))
    assert len(squares) == heat.matrix.size
    assert "nodes 0-3" in svg.buffer_map_svg(BLOCKS[9]) and "<script>" not in svg.buffer_map_svg(BLOCKS[9])
    assert png.heat_map_png(heat).startswith(b"\x89PNG\r\n")
    colours = png.colours_of(heat.matrix)
    assert colours[0, 2].tolist() == [255, 230, 0]  # not a number
    assert colours[1, 0].tolist() == [255, 255, 255]  # zero
