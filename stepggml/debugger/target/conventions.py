"""The names of variables by which the debugger understands a program. The exhibits use them as real ggml and llama.cpp
do; a program that uses others loses nothing that cannot be found in another way, which is said with each.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any

# The local that counts layers, the first that there is. Without one a tensor belongs to no layer: nodes are stepped all
# the same, `layer` runs to the end of the graph, and "KQ_soft_max-0" finds nothing.
LAYERS = ("il", "i_layer", "layer")

# Tokens evaluated before, and those of an evaluation. Without them the input that holds the tokens' positions tells.
N_PAST = "n_past"
N_TOKENS = ("N", "n_tokens")

# In the name of the input that holds the tokens' positions. Without it both numbers are 0.
POSITIONS = "pos"

# The argument that is the model: gpt2_model, llama_model. Without it, the first argument of a class so called.
MODEL = "model"

# What a buffer is for, by the name of the variable that holds it. The buffer's own usage goes first; without either, a
# graph that reads it (weights) or writes it (keys and values) tells, once it is computed.
KV_BUFFER = "kv"
WEIGHTS_BUFFER_ENDS = "_w"
WEIGHTS_BUFFER = ("weight", "buf_w")

# What holds mapped files, and what holds that: a model or a loader; a context, or whoever has a loader at work. Without
# one, memory that is mapped can be read, but it has no name.
MAPPING_HOLDERS = ("", "model", "ml")


def run_numbers(frame: FrameType | None) -> tuple[int, int] | None:
    """n_past and the number of tokens, of the nearest calling function that has both."""
    while frame is not None:
        if N_PAST in frame.f_code.co_varnames:
            names = frame.f_locals
            n_past = names.get(N_PAST)
            for name in N_TOKENS:
                n_tokens = names.get(name)
                if isinstance(n_past, int) and isinstance(n_tokens, int):
                    return n_past, n_tokens
        frame = frame.f_back
    return None


def layer_among(names: Mapping[str, Any]) -> int | None:
    """The layer that a frame's locals say they are at."""
    for name in LAYERS:
        il = names.get(name)
        if isinstance(il, int):
            return il
    return None


def model_among(frame: FrameType) -> Any:
    """The model, if a function that was just called has been handed it."""
    code = frame.f_code
    arguments = code.co_varnames[: code.co_argcount]
    if MODEL in arguments:
        return frame.f_locals.get(MODEL)
    for name in arguments:
        value = frame.f_locals.get(name)
        if type(value).__name__.lower().endswith(MODEL):
            return value
    return None


def guess_kind(variable: str) -> str:
    """What a buffer is for, by the variable that holds it: "weights", "kv" or "other"."""
    last = variable.rsplit(".", 1)[-1].lower()
    if KV_BUFFER in last:
        return "kv"
    if last.endswith(WEIGHTS_BUFFER_ENDS) or any(part in last for part in WEIGHTS_BUFFER):
        return "weights"
    return "other"
