"""Why a node runs where it runs: the scheduler's reason where there is one, and what every device says to the node."""

from __future__ import annotations

from dataclasses import dataclass

from .... import _kernels
from ....ggml import (
    GGML_OP_NONE,
    ggml_backend,
    ggml_backend_buffer_name,
    ggml_backend_dev_count,
    ggml_backend_dev_description,
    ggml_backend_dev_get,
    ggml_backend_dev_name,
    ggml_backend_dev_supports_buft,
    ggml_backend_dev_supports_op,
    ggml_backend_device,
    ggml_backend_name,
    ggml_backend_sched,
    ggml_get_n_tasks,
    ggml_op_name,
    ggml_tensor,
)
from ....ggml.backend_sched_split import buffer_of
from ....ggml.ops import op_records
from ....ggml.tensor import pointer_to
from ...errors import DebuggerError
from ...run.stops import NodeInfo
from ...target.repacked import is_repacked, text_of
from ...target.splits import find_sched
from ..look import Looker
from ..tensor_names import formula_name

# What the scheduler's codes mean: pass and rule.
CAUSES = {
    "usr": "the program asked for it",
    "1.dst": "its memory is there already, in a buffer that this backend uses",
    "1.vsrc": "it is a view of memory that this backend uses",
    "1.inp": "the program writes it: inputs belong to the last backend, the CPU",
    "1.off": "its weights lie in host memory, but a faster backend wants the op",
    "1.wgt": "its weights lie there (src{n})",
    "2.sup": "its neighbours in the graph run there, and that backend supports the op",
    "3.best": "of the backends that support it, most of its operands are at hand there",
    "3.upg": "a faster backend uses the same memory and supports it",
    "4.vsrc": "it goes where the root of its view is",
    "4.cur": "it goes where the node that uses it is",
}
PASSES = {
    "1": "pass 1, what is settled by itself",
    "2": "pass 2, what lies between settled nodes",
    "3": "pass 3, what is still open, and upgrades",
    "4": "pass 4, operands",
}


@dataclass(frozen=True)
class Verdict:
    """What one device says. op: whether it can run the node; unusable: operands in memory that it cannot use."""

    device: str
    description: str
    op: bool
    unusable: tuple[str, ...]


@dataclass(frozen=True)
class BackendReason:
    """Where a node runs and why.

    backend: its name; n_backends: how many the run has. cause, cause_text: the scheduler's code and what it says, empty
    without a scheduler; split: number of the split. operands: (name, buffer). kernel: of the compiled variant, or the
    reference; variant and its score. n_tasks: threads of n_threads. sum_order: whose order of additions it keeps, or
    would. repacked: (name, buffer) of an operand whose rows lie sixteen side by side.
    """

    info: NodeInfo
    backend: str
    device: str
    n_backends: int
    cause: str = ""
    cause_text: str = ""
    cause_pass: str = ""
    split: int | None = None
    n_splits: int = 0
    operands: tuple[tuple[str, str], ...] = ()
    result_buffer: str = ""
    verdicts: tuple[Verdict, ...] = ()
    kernel: bool = False
    variant: str = ""
    variant_text: str = ""
    n_tasks: int = 1
    n_threads: int = 1
    is_noop: bool = False
    sum_order: str = ""
    repacked: tuple[str, str] | None = None


def why_backend(look: Looker, tensor: ggml_tensor) -> BackendReason:
    """Why a node of the graph at hand runs on its backend. Raises DebuggerError when it is in no graph yet."""
    info = look.info(tensor)
    if tensor.op == GGML_OP_NONE:
        raise DebuggerError(f"{formula_name(info)} is not computed: it lies in {info.buffer or 'its pool'}")
    ev = look.graph.eval
    sched = find_sched(look.engine.frame)
    backend = backend_of(sched, tensor) or (ev.backend if ev is not None else None)
    if backend is None:
        raise DebuggerError("no backend has been given this graph yet: `si` runs to its first node")
    device = backend.device
    n_threads = getattr(backend.context, "n_threads", 1)
    chosen = _kernels.chosen()
    address = _kernels.kernel_address("ggml_compute_forward_" + ggml_op_name(tensor.op).lower())
    sources = [src for src in tensor.src if src is not None]
    cause = sched.causes.get(pointer_to(tensor), "") if sched is not None else ""
    split = split_of(sched, tensor) if sched is not None else None
    return BackendReason(
        info=info,
        backend=ggml_backend_name(backend),
        device=ggml_backend_dev_description(device) if device is not None else "",
        n_backends=len(sched.backends) if sched is not None else 1,
        cause=cause,
        cause_text=cause_text(cause),
        cause_pass=PASSES.get(cause[:1], ""),
        split=split,
        n_splits=len(sched.splits) if sched is not None else 0,
        operands=tuple((formula_name(look.info(src)), buffer_name(look, src)) for src in sources),
        result_buffer=buffer_name(look, tensor),
        verdicts=tuple(verdict_of(look, tensor, sources, device) for device in devices(sched)),
        kernel=address != 0,
        variant=chosen.name,
        variant_text=variant_text(),
        n_tasks=ggml_get_n_tasks(tensor, n_threads),
        n_threads=n_threads,
        is_noop=op_records[tensor.op].is_noop,
        sum_order=getattr(backend.context, "sum_order", ""),
        repacked=next(((formula_name(look.info(src)), text_of(src)) for src in sources if is_repacked(src)), None),
    )


def cause_text(cause: str) -> str:
    """A code of the scheduler's in words."""
    if cause.startswith("1.wgt"):
        return CAUSES["1.wgt"].format(n=cause[5:])
    return CAUSES.get(cause, "")


def backend_of(sched: ggml_backend_sched | None, tensor: ggml_tensor) -> ggml_backend | None:
    """The backend that the scheduler has assigned."""
    if sched is None:
        return None
    number = sched.hv_tensor_backend_ids.get(pointer_to(tensor), -1)
    return sched.backends[number] if number >= 0 else None


def split_of(sched: ggml_backend_sched, tensor: ggml_tensor) -> int | None:
    """The split that a node belongs to."""
    address = pointer_to(tensor)
    for number, split in enumerate(sched.splits):
        if split.graph is not None and address in (pointer_to(node) for node in split.graph.nodes):
            return number
    return None


def devices(sched: ggml_backend_sched | None) -> list[ggml_backend_device]:
    """The devices that could have been asked: the scheduler's, and those of the registry."""
    found = [backend.device for backend in sched.backends if backend.device is not None] if sched is not None else []
    for i in range(ggml_backend_dev_count()):
        device = ggml_backend_dev_get(i)
        if all(device is not known for known in found):
            found.append(device)
    return found


def verdict_of(look: Looker, tensor: ggml_tensor, sources: list[ggml_tensor], device: ggml_backend_device) -> Verdict:
    """Ask a device whether it can run a node and use its operands' memory."""
    unusable = []
    for src in sources:
        buffer = buffer_of(src)
        if buffer is not None and not ggml_backend_dev_supports_buft(device, buffer.buft):
            unusable.append(f"{formula_name(look.info(src))} in {ggml_backend_buffer_name(buffer)}")
    supports = ggml_backend_dev_supports_op(device, tensor)
    return Verdict(ggml_backend_dev_name(device), ggml_backend_dev_description(device), bool(supports), tuple(unusable))


def buffer_name(look: Looker, tensor: ggml_tensor) -> str:
    """The buffer of a tensor's bytes: what the program calls it, and what kind of memory it is."""
    buffer = buffer_of(tensor)
    known = look.world.buffer_at(tensor.data) if tensor.data else None
    kind = ggml_backend_buffer_name(buffer) if buffer is not None else "no buffer"
    return f"{known.name} ({kind})" if known is not None else kind


def variant_text() -> str:
    """How the compiled kernels were chosen: every variant with its score."""
    parts = []
    for item in _kernels.variants():
        note = f"lacks {', '.join(item.missing)}" if item.missing else f"score {item.score}"
        parts.append(f"{item.name} ({note})")
    return ", ".join(parts)
