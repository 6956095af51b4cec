"""The model's side: vocabulary, key and value memory, file."""

from __future__ import annotations

from ....runner import Program, open_program
from ...ask.snapshot import short_buffer
from ...errors import DebuggerError
from ...run.stops import NodeInfo
from ...show.document import Column, Document, Heading, table
from ...show.style import Line
from ..arguments import AnyInteger, Rest
from ..command import command
from ..interface import Shell

WRITES = (
    Column("node", least=16),
    Column("layer", "r", priority=2),
    Column("bytes of"),
    Column("from", priority=3),
    Column("place"),
    Column("bytes", "r"),
    Column("state", least=14, middle=False),
)


def model_path(shell: Shell) -> str:
    """The model file being debugged. Raises DebuggerError for a program without one."""
    path = shell.session.program.model_path
    if not path:
        raise DebuggerError("this program has no model file")
    return path


@command("info vocab", group="look")
def info_vocab(shell: Shell, text: Rest = "") -> Document | list[Line]:
    """Show token ids as text, or the tokens of a text; without arguments, facts about the vocabulary.

    Example: info vocab Old Mr. Crow
    Example: info vocab 12 13
    """
    with shell.muted():
        return vocabulary(open_program(model_path(shell)), text)


def vocabulary(program: Program, text: str) -> Document:
    """What `info vocab` shows. Raises DebuggerError for ids that are none."""
    if not text:
        facts = program.info().vocabulary
        lines = [Heading("vocabulary"), *(Line(f"  {name}: {value}") for name, value in facts.items())]
        return Document(lines, facts)
    words = text.replace(",", " ").split()
    if all(word.isdigit() and len(word) < 10 for word in words):
        ids = [int(word) for word in words]
    else:
        ids = program.tokenize(text.encode("utf-8", "surrogateescape"))
    try:
        pieces = program.pieces(ids)
    except RuntimeError as error:
        raise DebuggerError(str(error)) from None
    rows = [(str(id), repr(piece)[1:]) for id, piece in zip(ids, pieces, strict=True)]
    return Document([Heading("tokens", (f"{len(ids)}",)), table((Column("id", "r"), Column("bytes")), rows[:200])])


@command("info model", aliases=("info file",), group="look")
def info_model(shell: Shell) -> Document | list[Line]:
    """Show the model file: format, size, hyper-parameters, how many tensors of which type.

    Example: info model
    """
    with shell.muted():
        facts = open_program(model_path(shell)).info()
    lines = [Heading(facts.model.rsplit("/", 1)[-1], (facts.format, f"{facts.file_size:,} B"))]
    lines += [Line("  ", ("name", name), f" = {value}") for name, value in facts.hparams.items()]
    types: dict[str, list[int]] = {}
    for row in facts.tensors:
        types.setdefault(row["type"], []).append(row["bytes"])
    for name, sizes in types.items():
        lines.append(Line("  ", f"{len(sizes)} tensors of ", ("type", name), f", {sum(sizes):,} B"))
    return Document(lines, facts)


@command("info gguf", group="look")
def info_gguf(shell: Shell) -> Document | list[Line]:
    """Show the key-value pairs of a GGUF model file.

    Example: info gguf
    """
    with shell.muted():
        facts = open_program(model_path(shell)).info()
    if "gguf" not in facts.format.lower():
        return [Line(f"this model is not a GGUF file: {facts.format}; `info model` describes it")]
    return info_model(shell)


@command("info kv", group="memory", needs="graph")
def info_kv(shell: Shell, layer: AnyInteger | None = None, position: AnyInteger | None = None) -> Document | list[Line]:
    """Show the key and value memory: which bytes this evaluation's tokens go to, per layer.

    LAYER and POSITION narrow it to one token's bytes.

    Example: info kv
    Example: info kv 1 2
    """
    session = shell.session
    snapshot = session.snapshot()
    buffers = {item.name: item for item in snapshot.buffers if item.kind == "kv"}
    writes = [n for n in snapshot.nodes if n.buffer in buffers and not n.is_noop and n.data]
    if not buffers:
        return [Line("no key and value memory has been allocated yet")]
    tokens = f"{session.n_past} tokens before, {session.n_tokens} in this evaluation"
    lines = []
    for item in buffers.values():
        lines.append(Heading(item.name, (f"{item.size:,} B at {item.base:#x}", tokens)))
    rows = []
    for node in writes:
        if layer is not None and node.il != layer:
            continue
        rows.append(kv_row(node, session.n_past, max(1, session.n_tokens), position))
    if not rows:
        return [
            *lines,
            Line(
                "  no node of this evaluation writes there"
                if layer is None
                else f"  nothing is written for layer {layer}"
            ),
        ]
    lines.append(table(WRITES, rows[: 4 * shell.settings.page]))
    return Document(lines, {"buffers": list(buffers.values()), "writes": writes})


def kv_row(node: NodeInfo, n_past: int, n_tokens: int, position: int | None) -> list:
    """Where a node's write goes; for one position, the bytes of that token."""
    start, size, step = node.data, node.nbytes, ""
    what = f"tokens {n_past} to {n_past + n_tokens - 1}"
    if position is not None:
        what = f"token {position}"
        if node.contiguous:
            # the rows of tokens follow one another
            size = node.nbytes // n_tokens
            start = node.data + (position - n_past) * size
        else:
            # transposed: a token is a column
            start = node.data + (position - n_past) * node.nb[0]
            step = f", then every {node.nb[1]:,} B"
            size = node.ne[1] * node.nb[0]
    name = node.name if len(node.name) < 16 else f"#{node.index}"
    return [
        ("name", f"{name} {node.variable}" if node.variable and node.variable != node.name else name),
        "" if node.il is None else str(node.il),
        what,
        ("address", f"{start:#x}"),
        f"{short_buffer(node.buffer)} +{(node.offset or 0) + start - node.data:,}{step}",
        f"{size:,}",
        (node.badge.kind, node.badge.text),
    ]
