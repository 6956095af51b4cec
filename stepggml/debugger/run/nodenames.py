"""The names that a condition on nodes can use: op, name, ne, il, n_past, t and so on. Each is worked out only when it
is asked for.
"""

from __future__ import annotations

from typing import Any

from ...ggml import ggml_op_desc, ggml_op_name, ggml_tensor, ggml_type_name
from ..errors import DebuggerError
from ..target.values import convert
from ..target.world import World
from .conditions import Names
from .evaluation import NO_LAYER, Eval, node_at

# What help shows; the functions below make them.
NODE_NAMES = {
    "i": "index of the node",
    "op": "its op, such as 'MUL_MAT'",
    "desc": "its op, with the kind of a UNARY: 'GELU'",
    "name": "its name",
    "variable": "the variable that held it, such as 'KQ_soft_max'",
    "type": "its type, such as 'f32'",
    "ne": "its shape, as a tuple in ne order",
    "nb": "its strides in bytes",
    "il": "its layer, or None",
    "t": "its values as a numpy array of shape (ne3, ne2, ne1, ne0); None for one without memory",
    "src": "its operands' values, as a list of such arrays",
    "node": "the ggml_tensor",
    "eval": "number of the evaluation",
    "n_past": "tokens before this evaluation",
    "N": "tokens of this evaluation",
    "model": "the program's model object",
}


def node_names(world: World, ev: Eval, k: int) -> Names:
    """The names for the moment right after node k, whose evaluation is loaded."""
    node = node_at(ev, k)
    il = int(ev.il[k])
    return Names(
        {
            "op": lambda: ggml_op_name(node.op),
            "desc": lambda: ggml_op_desc(node),
            "type": lambda: ggml_type_name(node.type),
            "ne": lambda: tuple(node.ne),
            "nb": lambda: tuple(node.nb),
            "t": lambda: array_of(world, node),
            "src": lambda: [array_of(world, src) for src in node.src if src is not None],
        },
        {
            "i": k,
            "name": ev.names[k],
            "variable": ev.makers[k].variable,
            "il": None if il == NO_LAYER else il,
            "node": node,
            "eval": ev.index,
            "n_past": ev.n_past,
            "N": ev.n_tokens,
            "n_tokens": ev.n_tokens,
            "model": world.model,
        },
    )


def array_of(world: World, tensor: ggml_tensor) -> Any:
    """What lies in a tensor's bytes now."""
    try:
        return convert(tensor, world.memory.read(tensor))
    except DebuggerError:
        return None
