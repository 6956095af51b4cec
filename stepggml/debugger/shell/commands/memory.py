"""Addresses, bytes and layout: x, hexdump, addr, xinfo, vmmap, and pictures of memory."""

from __future__ import annotations

from ....ggml import ggml_blck_size, ggml_n_dims, ggml_nbytes, ggml_nelements, ggml_type_size
from ...ask.known import known_tensors, last_writer
from ...ask.tensor_names import title_of
from ...errors import DebuggerError
from ...run.stops import NodeInfo
from ...show.document import Block, Column, Heading, table
from ...show.panels import hexdump as hexdump_panel
from ...show.panels import pools as pools_panel
from ...show.panels.node import badge_part, place_text
from ...show.panels.scalars import float_bits
from ...show.repacked import repacked_note
from ...show.style import Line
from ...target.elements import address_of_element
from ...target.repacked import GROUP_ROWS, in_group, is_repacked, read_block
from ..arguments import Address, AddressArg, Count, Element, Fmt, Tensor, Word
from ..command import command
from ..interface import Shell
from ..listings import choose_pool

SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
MAX_DUMP = 1 << 16
ALIASES = (Column("also in", least=16), Column("", priority=1), Column("", priority=2), Column(""), Column(""))


@command("x", group="memory")
def examine(shell: Shell, fmt: Fmt, address: Address | None = None) -> list[Block]:
    """Show memory: /N how many, /x d u o t f c the form, /b h w g the size of each (1, 2, 4, 8 bytes).

    ADDR is a number, a tensor (its data), or an expression. /2f shows floats, /4hf halves. An empty line goes on.

    Example: x/8xw node_3
    Example: x/4f node_3
    """
    if address is None:
        raise DebuggerError("x needs an address, for instance: x/8xw node_3, x/4f KQ, x/16xb 0x7f0012345678")
    letter = fmt.letter or "x"
    size = SIZES[fmt.size or ("b" if letter == "c" else "w")]
    data = shell.session.read(address, fmt.count * size)
    following = f"x/{fmt.count}{letter}{fmt.size} {address + len(data):#x}"
    shell.repeat_with(following)
    return [*whose_bytes(shell, address), *hexdump_panel.render_units(address, data, letter, size)]


def whose_bytes(shell: Shell, address: int) -> list[Block]:
    """A warning when the tensor that named an address does not own the bytes there (yet, or any longer), or when
    rows lie side by side there.
    """
    tensor = getattr(address, "tensor", None)
    badge = shell.session.badge(tensor) if tensor is not None else None
    if badge is not None and badge.kind not in ("LIVE", "VIEW-OF"):
        return [Line(("warn", f"these are not its values: {badge.text}"))]
    return repacked_note(tensor or shell.session.owner_of(address), indent=0, style="warn")


@command("hexdump", aliases=("hd",), group="memory")
def hexdump(shell: Shell, address: AddressArg, length: Count = 64) -> list[Block]:
    """Show LENGTH bytes (default 64) at an address or at a tensor's data, as hex and as characters.

    Example: hexdump node_3
    Example: hexdump node_3 256
    """
    if length > MAX_DUMP:
        raise DebuggerError(f"hexdump shows at most {MAX_DUMP:,} bytes at once")
    data = shell.session.read(address, length)
    shown = data[: 16 * 4 * shell.settings.page]
    lines = [*whose_bytes(shell, address), hexdump_panel.render(address, shown)]
    shell.repeat_with(f"hexdump {address + len(shown):#x} {length}")
    if len(shown) < len(data):
        lines.append(Line("  ", ("hint", f"… {len(data) - len(shown):,} bytes more: an empty line goes on")))
    return lines


@command("addr", group="memory", needs="run")
def addr(shell: Shell, element: Element) -> list[Block]:
    """Spell out where T[i,j,k] lies: base + i*nb0 + j*nb1 + ..., the bytes there, the value, who else has these bytes.

    Example: addr KQ[1,2,0]
    Example: addr K[3,1,2]
    """
    tensor, index = element
    session = shell.session
    info = session.info(tensor)
    place = address_of_element(tensor, *index)
    n_dims = max(1, ggml_n_dims(tensor), 4 - next(k for k, i in enumerate([*reversed(index), 1]) if i))
    shown = ",".join(str(i) for i in index[:n_dims])
    lines: list[Block] = [
        Heading(f"{info.name or hex(info.address)}[{shown}]", (info.type, f"ne {list(info.ne)}", f"nb {list(info.nb)}"))
    ]
    terms = ["data", *(f"i{k}*nb{k}" for k in range(n_dims - 1, -1, -1))]
    if in_group(tensor, index[1]):
        terms = ["data", f"i1//{GROUP_ROWS}*({GROUP_ROWS}*nb1)", f"block*({GROUP_ROWS}*nb0)"]
    lines.append(Line("  ", ("dim", " + ".join(terms))))
    lines.append(Line("  ", ("address", place.text)))
    lines.append(Line("  ", ("dim", "that is "), place_text(info), f" +{place.address - tensor.data:,} B"))
    lines += repacked_note(tensor, index[1])
    data = read_block(tensor, index, shell.session.read)
    lines.append(Line("  ", ("dim", "bytes "), data[:40].hex(" ") + (" …" if len(data) > 40 else "")))
    lines.append(value_line(shell, tensor, index, place.within_block))
    lines += alias_lines(shell, place.address, place.size, info.address)
    return lines


def value_line(shell: Shell, tensor, index: tuple[int, ...], within_block: int | None) -> Line:  # noqa: ANN001
    """The element's value, with the badge of its tensor."""
    view = shell.session.view(tensor)
    value = view.value()
    line = Line("  ", ("dim", "value "))
    if value.array is None:
        return line.add(("warn", value.note or value.badge.text))
    element = value.array[tuple(reversed(index))]
    line.add(str(element))
    if within_block is not None:
        line.add(("dim", f" (element {within_block} of its block)"))
    elif element.dtype.kind == "f":
        line.add(("dim", f" ({float_bits(float(element))} as float)"))
    return line.add("  ").add(badge_part(value.badge)).add(("dim", f"  {value.note}" if value.note else ""))


def alias_lines(shell: Shell, address: int, size: int, but: int) -> list[Block]:
    """Other tensors whose data cover an address: those that exist already, and how many will come."""
    rows = []
    n_to_come = 0
    session = shell.session
    for info in known_tensors(session.snapshot(), lambda at: session.info(session.tensor(at))):
        if info.address == but or not info.data or not info.data <= address <= info.data + info.nbytes - size:
            continue
        if info.badge.kind == "NOT-COMPUTED":
            n_to_come += 1
            continue
        rows.append(alias_row(info, address))
    if not rows and not n_to_come:
        return [Line("  ", ("dim", "no other tensor covers these bytes"))]
    lines: list[Block] = [table(ALIASES, rows[:12])] if rows else []
    if len(rows) > 12:
        lines.append(Line("  ", ("dim", f"… and {len(rows) - 12} more")))
    if n_to_come:
        lines.append(Line("  ", ("dim", f"{n_to_come} nodes that are not computed yet will use these bytes")))
    return lines


def alias_row(info: NodeInfo, address: int) -> tuple:
    """A tensor that covers an address."""
    where = f"at its byte {address - info.data:,}"
    return (("name", title_of(info)), ("op", info.desc), ("type", info.type), badge_part(info.badge), where)


@command("xinfo", group="memory", needs="run")
def xinfo(shell: Shell, address: Address) -> list[Block]:
    """Say what lies at an address: which pool, buffer, object or tensor, and whose bytes they are now.

    Example: xinfo node_3
    """
    region = shell.session.region_of(address)
    lines: list[Block] = [Heading(f"{address:#x}")]
    if region is None:
        return [*lines, Line("  nothing of the program's: no pool and no buffer holds this address")]
    lines.append(Line("  ", ("type", region.kind), "  ", ("name", region.text)))
    lines.append(
        Line("  ", ("dim", f"{region.name}: {region.base:#x} to {region.base + region.size:#x}, {region.size:,} B"))
    )
    nodes = shell.session.snapshot().nodes if shell.session.graph is not None else ()
    writer = last_writer(nodes, shell.session.node_index, address)
    if writer is not None:
        lines.append(
            Line("  ", ("dim", "last written by "), ("name", title_of(writer)), f" {writer.desc}, node {writer.index}")
        )
    elif region.kind == "buffer":
        lines.append(Line("  ", ("dim", "no node of this evaluation has written here yet")))
    owner = shell.session.owner_of(address)
    if owner is not None and is_repacked(owner):
        lines += repacked_note(owner, (address - owner.data) // owner.nb[1])
    lines += alias_lines(shell, address, 1, 0)
    return lines


@command("distance", group="memory", needs="run")
def distance(shell: Shell, a: AddressArg, b: AddressArg) -> Line:
    """Say how many bytes lie between two addresses or two tensors' data.

    Example: distance node_0 node_3
    """
    delta = b - a
    text = f"{b:#x} - {a:#x} = {delta:,} B"
    return Line(text, ("dim", f" ({delta:#x}; {delta / 4:,.2f} floats)"))


@command("vmmap", group="memory", needs="run")
def vmmap(shell: Shell) -> list[Block]:
    """Draw the program's memory: context pools, backend buffers and mapped files by address, with their use.

    As with every command, -o FILE.svg saves what is shown.

    Example: vmmap
    """
    snapshot = shell.session.snapshot(nodes=False)
    mappings = shell.session.mappings(tensors=False)
    if not snapshot.pools and not snapshot.buffers and not mappings:
        return [Line("no memory of ggml's yet")]
    return pools_panel.memory_document(snapshot.pools, snapshot.buffers, mappings)


@command("telescope", group="memory", needs="run")
def telescope(shell: Shell, tensor: Tensor) -> list[Block]:
    """Follow a tensor's pointers: struct, src[], view_src, data, buffer.

    Example: telescope KQ
    """
    return [Heading("telescope"), *telescope_lines(shell, tensor, "", 0)]


def telescope_lines(shell: Shell, tensor, label: str, depth: int) -> list[Block]:  # noqa: ANN001
    """One tensor and, two levels deep, what it points to."""
    info = shell.session.info(tensor)
    margin = "  " + "    " * depth
    line = Line(
        margin,
        ("dim", f"{label} → " if label else ""),
        ("address", f"{info.address:#x}"),
        "  ",
        ("name", info.name or "(no name)"),
    )
    line.add("  ").add(("op", info.desc)).add("  ").add(("type", info.type)).add(f" {list(info.ne)}  ").add(
        badge_part(info.badge)
    )
    lines: list[Block] = [line]
    if depth <= 1:
        for k, address in enumerate(info.src_addresses):
            try:
                lines += telescope_lines(shell, shell.session.tensor(address), f"src[{k}]", depth + 1)
            except DebuggerError as error:
                lines.append(Line(margin, "    ", ("warn", f"src[{k}]: {error}")))
    if info.view_src and depth == 0:
        lines.append(Line(margin, "    ", ("dim", "view_src → "), ("name", info.view_src), f" +{info.view_offs:,} B"))
    if depth == 0:
        lines.append(Line(margin, "    ", ("dim", "data → "), ("address", f"{info.data:#x}"), f"  {place_text(info)}"))
        lines.append(Line(margin, "    ", ("dim", "buffer → "), info.buffer or "none"))
        lines += repacked_note(tensor, indent=len(margin) + 4)
    return lines


@command("walk", group="memory", needs="run")
def walk(shell: Shell, tensor: Tensor) -> list[Block]:
    """Show in which order the elements are met when memory is read from front to back: what the strides mean.

    Example: walk K
    Example: walk Q
    """
    info = shell.session.info(tensor)
    blck_size = ggml_blck_size(tensor.type)
    lines: list[Block] = [
        Heading(info.name or hex(info.address), (info.type, f"ne {list(info.ne)}", f"nb {list(info.nb)}"))
    ]
    if ggml_nelements(tensor) == 0:
        return [*lines, Line("  no elements")]
    if info.repacked:
        # nb says how rows lie elsewhere; here a block of each comes before the next block of the first
        return [*lines, *repacked_note(tensor)]
    axes = sorted((k for k in range(4) if info.ne[k] > 1), key=lambda k: (info.nb[k], k))
    if not axes:
        return [*lines, Line("  one element only")]
    step = ggml_type_size(tensor.type)
    for k in axes:
        unit = f"blocks of {blck_size} elements" if k == 0 and blck_size > 1 else "elements"
        gap = info.nb[k] - step
        text = (
            "its neighbours touch"
            if gap == 0
            else f"{gap:,} B between neighbours' starts and ends"
            if gap > 0
            else "its neighbours overlap"
        )
        lines.append(
            Line("  ", ("name", f"i{k}"), f" steps by nb{k} = {info.nb[k]:,} B ({info.ne[k]:,} {unit}): {text}")
        )
        step = info.nb[k] * (info.ne[k] // blck_size if k == 0 else info.ne[k])
    lines.append(Line("  ", ("dim", "in memory order:")))
    lines += walk_rows(info, axes, blck_size)
    span = ggml_nbytes(tensor)
    filled = ggml_nelements(tensor) // blck_size * ggml_type_size(tensor.type)
    lines.append(
        Line(
            "  ", ("dim", f"{filled:,} B of elements in a span of {span:,} B" + (": no gaps" if filled == span else ""))
        )
    )
    return lines


def walk_rows(info: NodeInfo, axes: list[int], blck_size: int) -> list[Block]:
    """The first elements met, then, for each further dimension, where its index goes to 1, 2 and its end."""
    places: dict[int, str] = {}
    for position, k in enumerate(axes):
        unit = blck_size if k == 0 else 1
        n = info.ne[k] // unit
        for i in sorted({0, 1, 2, n - 1} & set(range(n))) if position == 0 else sorted({1, 2, n - 1} & set(range(n))):
            index = [0, 0, 0, 0]
            index[k] = i * unit
            places.setdefault(i * info.nb[k], "T[" + ",".join(str(i) for i in index) + "]")
    lines = []
    last = None
    for offset in sorted(places):
        if last is not None and offset - last > info.nb[axes[0]]:
            lines.append(Line(" " * 15, ("dim", "…")))
        lines.append(Line("    ", ("address", f"+{offset:,}".rjust(12)), f"  {places[offset]}"))
        last = offset
    return lines


@command("vis", group="memory", needs="run")
def vis(shell: Shell, pool: Word = "", count: Count = 6) -> list[Block]:
    """Draw the cells of a context's pool: object header, tensor struct, data, free room. Newest objects unless named.

    Example: vis
    Example: vis ctx_w 3
    """
    pools = shell.session.snapshot().pools
    if not pools:
        return [Line("no context has been made yet")]
    chosen, _rest = choose_pool(pools, pool)
    return pools_panel.cells_document(chosen, min(count, 200))
