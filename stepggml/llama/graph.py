"""llama_build_graph: the graph of one micro-batch, its tensors named and, where that matters, placed.

Mirrors: llama_build_graph of llama.cpp/src/llama.cpp with its callback, a lambda there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ggml import (
    ggml_backend_get_device,
    ggml_backend_sched_set_tensor_backend,
    ggml_backend_supports_op,
    ggml_cgraph,
    ggml_format_name,
    ggml_set_name,
    ggml_tensor,
)
from .batch import llama_ubatch
from .llm_build_context import llm_build_context

if TYPE_CHECKING:
    from .context import llama_context

# From this many tokens on, an op is worth bringing to a GPU even when its weights are elsewhere.
MIN_BATCH_FOR_OFFLOAD = 32


class GraphCallback:
    """cb(cur, name, il): gives a tensor its name, and says where a few of them run."""

    def __init__(self, lctx: llama_context, ubatch: llama_ubatch) -> None:
        self.lctx = lctx
        self.ubatch = ubatch

    def __call__(self, cur: ggml_tensor, name: str, il: int) -> None:
        """ "name-il" inside layers, "name" outside."""
        if il >= 0:
            ggml_format_name(cur, f"{name}-{il}")
        else:
            ggml_set_name(cur, name)

        # with the cache on the CPU, everything between storing and the attention's output runs there
        if name == "kqv_merged_cont" and not self.lctx.cparams.offload_kqv:
            ggml_backend_sched_set_tensor_backend(self.lctx.sched, cur, self.lctx.backend_cpu)
        if name == "norm" and il != -1:
            self.place_norm(cur, il)

    def place_norm(self, cur: ggml_tensor, il: int) -> None:
        """Keep a layer's norm on the layer's device: the scheduler would leave it with the layer before."""
        lctx = self.lctx
        full_offload = lctx.model.params.n_gpu_layers > lctx.model.hparams.n_layer
        if self.ubatch.n_tokens >= MIN_BATCH_FOR_OFFLOAD and not full_offload:
            return
        dev_layer = lctx.model.dev_layer(il)
        for backend in lctx.backends:
            if ggml_backend_get_device(backend) is dev_layer and ggml_backend_supports_op(backend, cur):
                ggml_backend_sched_set_tensor_backend(lctx.sched, cur, backend)


def llama_build_graph(lctx: llama_context, ubatch: llama_ubatch, worst_case: bool) -> ggml_cgraph:
    """The graph for a micro-batch. Its structs lie in the context's buffer until the next one is built."""
    cb = GraphCallback(lctx, ubatch)
    llm = llm_build_context(lctx, ubatch, cb, worst_case)
    llm.init()

    # the architecture's own function
    result = lctx.model.arch.build(llm)

    # embeddings instead of logits
    if lctx.cparams.embeddings:
        result = llm.append_pooling(result)
    llm.free()
    return result
