"""Panels and styled text: what is drawn from plain data, at 80 and at 200 columns, with and without colours."""

from __future__ import annotations

import io

import numpy as np
import pytest

from stepggml.debugger.ask.snapshot import BufferInfo, Change, ObjectInfo, PoolInfo
from stepggml.debugger.run.stops import Badge, NodeInfo, Origin
from stepggml.debugger.show.document import Block, as_blocks
from stepggml.debugger.show.layout import lines_of
from stepggml.debugger.show.panels import changes, graph, hexdump, node, pools, quant_blocks, source, values
from stepggml.debugger.show.style import Line, printable
from stepggml.debugger.show.terminal import Painter, page_width

WIDTHS = (80, 200)

ORIGIN = Origin(
    (("/x/stepggml/ggml/ops/mul_mat.py", 30, "ggml_mul_mat"), ("/x/stepggml/gpt2/graph.py", 96, "build")), 0
)
NODE = NodeInfo(
    index=24,
    name="node_24",
    op="MUL_MAT",
    desc="MUL_MAT",
    type="f32",
    ne=(4, 4, 12, 1),
    nb=(4, 16, 64, 768),
    nbytes=768,
    address=0x7F0000001000,
    data=0x7F0000100000,
    offset=24640,
    buffer="compute",
    badge=Badge("LIVE", "LIVE"),
    srcs=(" (view) (reshaped) (permuted)", "node_22 (permuted)"),
    src_addresses=(0x7F0000002000, 0x7F0000003000),
    il=0,
    variable="KQ",
    origin=ORIGIN,
)
POOL = PoolInfo(
    "ctx",
    0x7F0000000000,
    1639680,
    736,
    2,
    True,
    False,
    False,
    (ObjectInfo(0x7F0000000000, 0, 336, "tensor", "embd"), ObjectInfo(0x7F0000000170, 368, 336, "tensor", "a" * 63)),
)
BUFFER = BufferInfo("compute buffer", "compute", "CPU", 0x7F0000100000, 9928960, 828704, "compute")


def texts(content: Block | list[Block], width: int) -> list[str]:
    """The lines of a document as text, each checked to fit."""
    lines = lines_of(as_blocks(content), width)
    for line in lines:
        assert len(line) <= width, f"{len(line)} > {width}: {line}"
    return [str(line) for line in lines]


# ----------------------------------------------------------------------------------------------------------------------
# arrays


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", [(8,), (100000,), (768, 4), (4, 4, 12), (64, 12, 40, 5), (1, 4), (3, 0), (300, 300)])
def test_arrays_fit_and_are_short(shape: tuple[int, ...], width: int) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    lines = texts(values.render_array(array, width), width)
    assert len(lines) <= 48


def test_axis_zero_runs_along_a_row() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T  # ne = [3, 2]
    lines = texts(values.render_array(array, 80), 80)
    assert [line.replace(" ", "") for line in lines] == ["[[01.00002.0000]", "[3.00004.00005.0000]]"]


def test_elided_in_the_middle() -> None:
    lines = texts(values.render_array(np.arange(1000), 80), 80)
    assert lines == ["  [  0   1   2 … 997 998 999]"]


def test_small_and_special_values_are_not_hidden() -> None:
    array = np.array([0.0, -0.0, 1e-9, 0.5, np.nan, -np.inf], dtype=np.float32)
    (line,) = texts(values.render_array(array, 100), 100)
    assert line.split()[1:] == ["0", "-0", "1.0e-09", "0.5000", "nan", "-inf]"]


def test_statistics() -> None:
    array = np.array([1, 2, np.nan, np.inf, 0], dtype=np.float32)
    found = values.statistics(array)
    assert (found.n, found.n_nan, found.n_inf, found.n_zero) == (5, 1, 1, 1)
    assert (found.min, found.max, found.mean) == (0, 2, 1)
    assert "nan 1" in str(values.stats_line(found))
    nothing = values.statistics(np.array([], dtype=np.float32))
    assert nothing.n == 0


# ----------------------------------------------------------------------------------------------------------------------
# cards, listings, pictures


@pytest.mark.parametrize("width", WIDTHS)
def test_node_card(width: int) -> None:
    array = np.random.default_rng(1).normal(size=(4, 4, 12)).astype(np.float32)
    lines = texts(node.card(NODE, [NODE, NODE], array, "", 487), width)
    text = "\n".join(lines)
    for word in (
        "node_24",
        "MUL_MAT",
        '"KQ"',
        "25/487",
        "layer 0",
        "LIVE",
        "[4, 16, 64, 768]",
        "+24,640",
        "src1",
        "nan 0",
    ):
        assert word in text
    if width == 200:
        assert "made by gpt2/graph.py:96" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_listings_fit(width: int) -> None:
    long = NodeInfo(**{**NODE.__dict__, "name": "leaf_8 (view) (reshaped) (permuted) (copy of a tensor with a name)"})
    texts(graph.nodes_table([NODE, long], 24), width)
    texts(graph.tensors_table([NODE, long]), width)
    texts(pools.pools_document([POOL]), width)
    assert any("4,453 more" in line for line in texts(pools.objects_document(POOL, 0, 2), width))
    texts(pools.buffers_document([BUFFER]), width)
    texts(pools.memory_document([POOL], [BUFFER]), width)
    texts(pools.cells_document(POOL, 5), width)
    texts(changes.changes_document([Change("object", "x" * 300)] * 20), width)
    texts(hexdump.render(0x1000, bytes(range(256))), width)
    texts(hexdump.render_units(0x1000, bytes(range(64)), "f", 4), width)


def test_source_marks_the_current_line() -> None:
    lines = texts(source.render([f"line{i} = 1" for i in range(1, 40)], 20, 3, 3, {21}), 80)
    assert len(lines) == 7
    assert [line[0] for line in lines].index("▸") == 3
    assert lines[4].startswith(" ●21")


def test_quant_block_values() -> None:
    # d = 0.5; codes 8, 9 in the first byte: elements 0 and 16
    data = np.float16(0.5).tobytes() + bytes([0x98] + [0x88] * 15)
    block = quant_blocks.Block("w", "q4_0", data, 0x1000, (0,), 1, 33, 32)
    decoded = quant_blocks.values(block)
    assert decoded[0] == 0 and decoded[16] == 0.5 and not decoded[1:16].any()
    assert any("d = 0.5" in line for line in texts(quant_blocks.render(block), 80))


# ----------------------------------------------------------------------------------------------------------------------
# style


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    line = Line(("error", "no"))
    assert "\x1b[" in Painter(Terminal()).paint(line)
    assert Painter(io.StringIO()).paint(line) == "no"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Painter(Terminal()).paint(line) == "no"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Painter(Terminal()).paint(Line(("error", "─[ ▸ ]─"))) == "-[ > ]-"


def test_streams_without_unicode() -> None:
    class Latin(io.StringIO):
        encoding = "ascii"

    assert Painter(Latin()).paint(Line("─ ▸ é")) == "- > ?"


def test_page_width() -> None:
    assert page_width(io.StringIO(), {"COLUMNS": "20"}) == 80
    assert page_width(io.StringIO(), {"COLUMNS": "120"}) == 120
    assert page_width(io.StringIO(), {"COLUMNS": "9999"}) == 200
    assert page_width(io.StringIO(), {"COLUMNS": "x"}) == 110


def test_nothing_from_a_file_drives_the_terminal() -> None:
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert str(Line("\x07")) == "\\x07"
