"""llama_context: what one conversation needs besides the model: settings, backends, KV cache, scheduler, outputs.

Mirrors: llama_context, llama_cparams, llama_context_params and llama_init_from_model of llama.cpp/src/llama.cpp.

Making one reserves memory for the worst case: a graph for a whole micro-batch with a full cache is built and measured,
so that no later evaluation has to allocate. An evaluation itself is in decode.py.

Leaves out: flash attention, saving and loading of states, adapters, encoders.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..ggml import (
    GGML_ASSERT,
    GGML_BACKEND_DEVICE_TYPE_ACCEL,
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_KQ_MASK_PAD,
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGML_PAD,
    GGML_TYPE_F16,
    NULL,
    ggml_aligned_free,
    ggml_aligned_malloc,
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_free,
    ggml_backend_buffer_type,
    ggml_backend_buft_name,
    ggml_backend_dev_backend_reg,
    ggml_backend_dev_count,
    ggml_backend_dev_get,
    ggml_backend_dev_host_buffer_type,
    ggml_backend_dev_init,
    ggml_backend_dev_name,
    ggml_backend_dev_type_of,
    ggml_backend_free,
    ggml_backend_get_default_buffer_type,
    ggml_backend_get_device,
    ggml_backend_init_by_name,
    ggml_backend_init_by_type,
    ggml_backend_reg_get_proc_address,
    ggml_backend_sched,
    ggml_backend_sched_free,
    ggml_backend_sched_get_buffer_size,
    ggml_backend_sched_get_n_splits,
    ggml_backend_sched_new,
    ggml_backend_sched_reserve,
    ggml_backend_sched_reset,
    ggml_backend_sched_split_graph,
    ggml_blck_size,
    ggml_free,
    ggml_graph_n_nodes,
    ggml_graph_overhead_custom,
    ggml_init,
    ggml_init_params,
    ggml_row_size,
    ggml_tensor,
    ggml_tensor_overhead,
    ggml_time_init,
)
from .batch import llama_batch_get_one, llama_sbatch
from .graph import llama_build_graph
from .hparams import LLAMA_ROPE_SCALING_TYPE_NONE, LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED, LLAMA_ROPE_SCALING_TYPE_YARN
from .kv_cache import (
    llama_kv_cache,
    llama_kv_cache_free,
    llama_kv_cache_get_padding,
    llama_kv_cache_init,
    print_kv_cache_size,
)
from .llm_build_context import LLAMA_POOLING_TYPE_NONE, LLAMA_POOLING_TYPE_UNSPECIFIED
from .model import LLAMA_SPLIT_MODE_LAYER, llama_model
from .outputs import llama_output_reserve

MiB = 1024.0 * 1024.0


class llama_context_params:
    """How to use a model. The defaults are llama.cpp's. 0, or -1 for the YaRN mix, means the model's own value."""

    def __init__(self) -> None:
        self.n_ctx = 512  # tokens in the cache; 0: as many as the model was trained with
        self.n_batch = 2048  # most tokens of one llama_decode
        self.n_ubatch = 512  # most tokens of one graph
        self.n_seq_max = 1  # most sequences
        self.n_threads = min(4, os.cpu_count() or 1)  # for one token at a time
        self.n_threads_batch = self.n_threads  # for more

        self.rope_scaling_type = LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED
        self.rope_freq_base = 0.0
        self.rope_freq_scale = 0.0
        self.yarn_ext_factor = -1.0
        self.yarn_attn_factor = 1.0
        self.yarn_beta_fast = 32.0
        self.yarn_beta_slow = 1.0
        self.yarn_orig_ctx = 0

        self.type_k = GGML_TYPE_F16
        self.type_v = GGML_TYPE_F16
        self.offload_kqv = True  # cache and attention on the layers' devices
        self.host_device = ""  # the device of type CPU that computes what no other does; empty: the first there is

        self.embeddings = False  # embeddings out instead of logits
        self.pooling_type = LLAMA_POOLING_TYPE_UNSPECIFIED
        self.logits_all = False

        # the scheduler's: cb_eval(t, ask, user_data)
        self.cb_eval: Callable[[ggml_tensor, bool, Any], bool] | None = None
        self.cb_eval_user_data: Any = None
        self.abort_callback: Callable[[Any], bool] | None = None
        self.abort_callback_data: Any = None


def llama_context_default_params() -> llama_context_params:
    return llama_context_params()


class llama_cparams:
    """The settings of a context, after the model had its say."""

    def __init__(self) -> None:
        self.n_ctx = 0
        self.n_batch = 0
        self.n_ubatch = 0
        self.n_seq_max = 1
        self.n_threads = 1
        self.n_threads_batch = 1
        self.rope_freq_base = 0.0
        self.rope_freq_scale = 0.0
        self.n_ctx_orig_yarn = 0
        self.yarn_ext_factor = 0.0
        self.yarn_attn_factor = 1.0
        self.yarn_beta_fast = 32.0
        self.yarn_beta_slow = 1.0
        self.offload_kqv = True
        self.embeddings = False
        self.causal_attn = True
        self.pooling_type = LLAMA_POOLING_TYPE_NONE
        self.cb_eval: Callable[[ggml_tensor, bool, Any], bool] | None = None
        self.cb_eval_user_data: Any = None


class MetaBuffer:
    """The memory of a graph's structs. Fields: address, size (bytes)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = ggml_aligned_malloc(size)

    def free(self) -> None:
        """Give it back."""
        ggml_aligned_free(self.address, self.size)
        self.address = NULL


class llama_context:
    """A context. Fields: model, cparams; backends (the CPU last), sched; kv_self; sbatch; the outputs; the inputs."""

    def __init__(self, model: llama_model) -> None:
        self.model = model
        self.cparams = llama_cparams()
        self.backends: list[ggml_backend] = []
        self.backend_cpu: ggml_backend | None = None
        # functions that set a backend's number of threads
        self.set_n_threads_fns: list[tuple[ggml_backend, Callable[[ggml_backend, int], None]]] = []
        self.sched: ggml_backend_sched | None = None
        self.buf_compute_meta: MetaBuffer | None = None

        self.kv_self = llama_kv_cache()
        self.sbatch = llama_sbatch(llama_batch_get_one([]), False)
        self.logits_all = False

        # outputs: addresses in buf_output, and which row belongs to which token of the batch (-1: none)
        self.buf_output: ggml_backend_buffer | None = None
        self.output_size = 0  # rows there is room for
        self.n_outputs = 0  # rows of the micro-batch at hand; after llama_decode, of the whole batch
        self.logits = NULL
        self.logits_size = 0  # floats
        self.embd = NULL
        self.embd_size = 0  # floats
        self.embd_seq: dict[int, Any] = {}  # sequence -> its pooled embedding
        self.output_ids: list[int] = []

        self.forget_inputs()

    def forget_inputs(self) -> None:
        """The inputs of the graph before are gone with it; builders set those of the next."""
        self.inp_tokens: ggml_tensor | None = None  # I32 [n_tokens]
        self.inp_embd: ggml_tensor | None = None  # F32 [n_embd, n_tokens]
        self.inp_pos: ggml_tensor | None = None  # I32 [n_tokens]
        self.inp_out_ids: ggml_tensor | None = None  # I32 [n_outputs]
        self.inp_KQ_mask: ggml_tensor | None = None  # F32 [n_kv, n_tokens padded]
        self.inp_mean: ggml_tensor | None = None  # F32 [n_tokens, n_tokens]
        self.inp_cls: ggml_tensor | None = None  # I32 [n_tokens]


def llama_backend_init() -> None:
    """Once per program, before anything else: starts the clock and fills the half -> float table."""
    ggml_time_init()
    # the very first ggml_init fills the table; today backends are loaded here, too
    params = ggml_init_params(mem_size=0, mem_buffer=NULL, no_alloc=False)
    ctx = ggml_init(params)
    ggml_free(ctx)


def llama_init_from_model(model: llama_model, params: llama_context_params) -> llama_context:
    """A context for a model. Raises MemoryError when memory is missing, ValueError for settings that cannot be."""
    check_params(model, params)
    ctx = llama_context(model)
    try:
        set_cparams(ctx, params)
        init_backends(ctx, params)
        init_kv_cache(ctx, params)
        llama_output_reserve(ctx, ctx.cparams.n_seq_max)
        init_sched(ctx)
        reserve_worst_case(ctx)
    except BaseException:
        llama_free(ctx)
        raise
    return ctx


def check_params(model: llama_model, params: llama_context_params) -> None:
    """What C reports and answers with NULL."""
    if params.n_batch == 0 and params.n_ubatch == 0:
        raise ValueError("n_batch and n_ubatch cannot both be zero")
    if params.n_ctx == 0 and model.hparams.n_ctx_train == 0:
        raise ValueError("n_ctx and model.hparams.n_ctx_train cannot both be zero")
    for name, type, n_embd_head in (
        ("type_k", params.type_k, model.hparams.n_embd_head_k),
        ("type_v", params.type_v, 1),
    ):
        # values are stored transposed, one by one: blocks would need flash attention
        if n_embd_head % ggml_blck_size(type) != 0:
            raise ValueError(f"{name}: the KV cache cannot have this type here")


def set_cparams(ctx: llama_context, params: llama_context_params) -> None:
    """Settle every setting: what the user says, else what the model says."""
    hparams = ctx.model.hparams
    cparams = ctx.cparams
    cparams.n_seq_max = max(1, params.n_seq_max)
    cparams.n_threads = params.n_threads
    cparams.n_threads_batch = params.n_threads_batch
    cparams.offload_kqv = params.offload_kqv
    cparams.embeddings = params.embeddings
    cparams.causal_attn = hparams.causal_attn
    cparams.cb_eval = params.cb_eval
    cparams.cb_eval_user_data = params.cb_eval_user_data
    ctx.logits_all = params.logits_all

    # the cache is padded, so that its last cells can be read like the others
    n_ctx = params.n_ctx or hparams.n_ctx_train
    cparams.n_ctx = GGML_PAD(n_ctx, llama_kv_cache_get_padding())

    # a batch fits the cache, and a micro-batch the batch
    cparams.n_batch = min(cparams.n_ctx, params.n_batch)
    if cparams.n_batch < GGML_KQ_MASK_PAD:
        # the mask has that many rows anyway
        cparams.n_batch = GGML_KQ_MASK_PAD
    cparams.n_ubatch = min(cparams.n_batch, params.n_ubatch or params.n_batch)

    set_rope_params(ctx, params)
    cparams.pooling_type = params.pooling_type
    if cparams.pooling_type == LLAMA_POOLING_TYPE_UNSPECIFIED:
        cparams.pooling_type = LLAMA_POOLING_TYPE_NONE

    GGML_LOG_INFO(f"llama_init_from_model: n_seq_max     = {cparams.n_seq_max}\n")
    GGML_LOG_INFO(f"llama_init_from_model: n_ctx         = {cparams.n_ctx}\n")
    GGML_LOG_INFO(f"llama_init_from_model: n_batch       = {cparams.n_batch}\n")
    GGML_LOG_INFO(f"llama_init_from_model: n_ubatch      = {cparams.n_ubatch}\n")
    GGML_LOG_INFO(f"llama_init_from_model: freq_base     = {cparams.rope_freq_base:.1f}\n")
    GGML_LOG_INFO(f"llama_init_from_model: freq_scale    = {cparams.rope_freq_scale:g}\n")
    if cparams.n_ctx > hparams.n_ctx_train:
        GGML_LOG_WARN(
            f"llama_init_from_model: n_ctx = {cparams.n_ctx} is more than the model was trained with "
            f"({hparams.n_ctx_train}): late tokens may make no sense\n"
        )


def set_rope_params(ctx: llama_context, params: llama_context_params) -> None:
    """How positions become angles."""
    hparams = ctx.model.hparams
    cparams = ctx.cparams
    cparams.rope_freq_base = params.rope_freq_base or hparams.rope_freq_base_train
    cparams.rope_freq_scale = params.rope_freq_scale or hparams.rope_freq_scale_train
    cparams.n_ctx_orig_yarn = params.yarn_orig_ctx or hparams.n_ctx_orig_yarn or hparams.n_ctx_train
    cparams.yarn_attn_factor = params.yarn_attn_factor * hparams.rope_attn_factor
    cparams.yarn_beta_fast = params.yarn_beta_fast
    cparams.yarn_beta_slow = params.yarn_beta_slow

    rope_scaling_type = params.rope_scaling_type
    if rope_scaling_type == LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED:
        rope_scaling_type = hparams.rope_scaling_type_train
    if rope_scaling_type == LLAMA_ROPE_SCALING_TYPE_NONE:
        cparams.rope_freq_scale = 1.0
    cparams.yarn_ext_factor = params.yarn_ext_factor
    if cparams.yarn_ext_factor < 0.0:
        # not set: all of YaRN or nothing
        cparams.yarn_ext_factor = 1.0 if rope_scaling_type == LLAMA_ROPE_SCALING_TYPE_YARN else 0.0


def init_backends(ctx: llama_context, params: llama_context_params) -> None:
    """A backend for each of the model's devices, for each ACCEL device, and for the CPU, in this order."""
    for dev in ctx.model.devices:
        backend = ggml_backend_dev_init(dev, None)
        if backend is None:
            raise RuntimeError(f"failed to initialize {ggml_backend_dev_name(dev)} backend")
        ctx.backends.append(backend)
    for i in range(ggml_backend_dev_count()):
        dev = ggml_backend_dev_get(i)
        if ggml_backend_dev_type_of(dev) == GGML_BACKEND_DEVICE_TYPE_ACCEL:
            backend = ggml_backend_dev_init(dev, None)
            if backend is None:
                raise RuntimeError(f"failed to initialize {ggml_backend_dev_name(dev)} backend")
            ctx.backends.append(backend)
    if params.host_device != "":
        # one that must be asked for by name, such as a second way to compute on this processor
        ctx.backend_cpu = ggml_backend_init_by_name(params.host_device, None)
    else:
        ctx.backend_cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, None)
    if ctx.backend_cpu is None:
        raise RuntimeError("failed to initialize CPU backend")
    ctx.backends.append(ctx.backend_cpu)

    # what only some backends can do is reached by name
    for backend in ctx.backends:
        device = ggml_backend_get_device(backend)
        reg = ggml_backend_dev_backend_reg(device)
        set_n_threads = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads")
        if set_n_threads is not None:
            ctx.set_n_threads_fns.append((backend, set_n_threads))
        set_abort_callback = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_abort_callback")
        if set_abort_callback is not None:
            set_abort_callback(backend, params.abort_callback, params.abort_callback_data)


def init_kv_cache(ctx: llama_context, params: llama_context_params) -> None:
    """The cache, for n_ctx tokens."""
    cparams = ctx.cparams
    check_kv_size(ctx, params)
    llama_kv_cache_init(ctx.kv_self, ctx.model, params.type_k, params.type_v, cparams.n_ctx, cparams.offload_kqv)
    print_kv_cache_size(ctx.kv_self, params.type_k, params.type_v)


def check_kv_size(ctx: llama_context, params: llama_context_params) -> None:
    """stepggml: n_ctx comes from the user or the file, so the size is compared with the machine's memory first."""
    hparams = ctx.model.hparams
    n_bytes = 0
    for il in range(hparams.n_layer):
        n_bytes += ctx.cparams.n_ctx * ggml_row_size(params.type_k, hparams.n_embd_k_gqa(il))
        n_bytes += ctx.cparams.n_ctx * ggml_row_size(params.type_v, hparams.n_embd_v_gqa(il))
    n_physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > n_physical:
        raise MemoryError(
            f"n_ctx = {ctx.cparams.n_ctx} needs {n_bytes / MiB:.0f} MiB for keys and values, "
            f"this machine has {n_physical / MiB:.0f} MiB"
        )


def init_sched(ctx: llama_context) -> None:
    """The scheduler, and the memory for a graph's structs."""
    model = ctx.model
    backend_buft: list[ggml_backend_buffer_type] = []
    for backend in ctx.backends:
        buft = ggml_backend_get_default_buffer_type(backend)
        if backend is ctx.backend_cpu and model.devices:
            # memory of the host that the first device can copy from quickly
            host_buft = ggml_backend_dev_host_buffer_type(model.devices[0])
            if host_buft is not None:
                buft = host_buft
        backend_buft.append(buft)

    max_nodes = model.max_nodes()
    meta_size = ggml_tensor_overhead() * max_nodes + ggml_graph_overhead_custom(max_nodes, False)
    ctx.buf_compute_meta = MetaBuffer(meta_size)

    # several GPUs can work on several batches at once, if nothing is left to the CPU
    pipeline_parallel = (
        len(model.devices) > 1
        and model.params.n_gpu_layers > model.hparams.n_layer
        and model.params.split_mode == LLAMA_SPLIT_MODE_LAYER
        and ctx.cparams.offload_kqv
    )
    ctx.sched = ggml_backend_sched_new(ctx.backends, backend_buft, max_nodes, pipeline_parallel)
    if pipeline_parallel:
        GGML_LOG_INFO("llama_init_from_model: pipeline parallelism enabled\n")


def reserve_worst_case(ctx: llama_context) -> None:
    """Build the largest graphs there will be, and make the compute buffers large enough for them."""
    n_ubatch = ctx.cparams.n_ubatch
    n_tokens = min(ctx.cparams.n_ctx, n_ubatch)

    # a graph of one token, for its numbers
    n_nodes_tg, n_splits_tg = reserve_graph(ctx, 1, True)
    # a prompt's graph last: the plan that is kept must be the larger one
    n_nodes_pp, n_splits_pp = reserve_graph(ctx, n_tokens, False)

    for backend in ctx.backends:
        size = ggml_backend_sched_get_buffer_size(ctx.sched, backend)
        if size > 0:
            buft = ggml_backend_get_default_buffer_type(backend)
            name = ggml_backend_buft_name(buft)
            GGML_LOG_INFO(f"llama_init_from_model: {name:>10s} compute buffer size = {size / MiB:8.2f} MiB\n")
    report_counts("nodes ", n_nodes_pp, n_nodes_tg, n_tokens)
    report_counts("splits", n_splits_pp, n_splits_tg, n_tokens)


def report_counts(what: str, n_pp: int, n_tg: int, n_tokens: int) -> None:
    """Log a number of both graphs; once when it is the same."""
    text = f"{n_pp}"
    if n_pp != n_tg:
        text = f"{n_pp} (with bs={n_tokens}), {n_tg} (with bs=1)"
    GGML_LOG_INFO(f"llama_init_from_model: graph {what} = {text}\n")


def reserve_graph(ctx: llama_context, n_tokens: int, split_only: bool) -> tuple[int, int]:
    """Reserve for `n_tokens` at the end of a full cache; with split_only, as in llama.cpp today, the graph is cut, and
    that is all. Returns its numbers of nodes and splits.
    """
    # any token will do: nothing is computed
    token = max(ctx.model.vocab.special_bos_id, 0)
    batch = llama_batch_get_one([token] * n_tokens)
    batch.pos = [0] * n_tokens
    batch.seq_id = [[0]] * n_tokens
    sbatch = llama_sbatch(batch, True)
    ubatch = sbatch.split_simple(n_tokens)

    gf = llama_build_graph(ctx, ubatch, True)
    n_nodes = ggml_graph_n_nodes(gf)
    if split_only:
        ggml_backend_sched_split_graph(ctx.sched, gf)
        n_splits = ggml_backend_sched_get_n_splits(ctx.sched)
        ggml_backend_sched_reset(ctx.sched)
        return n_nodes, n_splits
    if not ggml_backend_sched_reserve(ctx.sched, gf):
        raise MemoryError(f"failed to allocate compute buffers for {n_tokens} tokens")
    n_splits = ggml_backend_sched_get_n_splits(ctx.sched)
    return n_nodes, n_splits


def llama_free(ctx: llama_context | None) -> None:
    """Give everything back but the model."""
    if ctx is None:
        return
    ctx.forget_inputs()
    ggml_backend_sched_free(ctx.sched)
    ctx.sched = None
    llama_kv_cache_free(ctx.kv_self)
    ggml_backend_buffer_free(ctx.buf_output)
    ctx.buf_output = None
    if ctx.buf_compute_meta is not None:
        ctx.buf_compute_meta.free()
        ctx.buf_compute_meta = None
    for backend in ctx.backends:
        ggml_backend_free(backend)
    ctx.backends = []
    ctx.backend_cpu = None


def llama_set_n_threads(ctx: llama_context, n_threads: int, n_threads_batch: int) -> None:
    """Threads for one token at a time, and for more."""
    GGML_ASSERT(n_threads > 0 and n_threads_batch > 0, "at least one thread", got=(n_threads, n_threads_batch))
    ctx.cparams.n_threads = n_threads
    ctx.cparams.n_threads_batch = n_threads_batch


def llama_n_ctx(ctx: llama_context) -> int:
    return ctx.cparams.n_ctx


def llama_n_batch(ctx: llama_context) -> int:
    return ctx.cparams.n_batch


def llama_n_ubatch(ctx: llama_context) -> int:
    return ctx.cparams.n_ubatch


def llama_get_model(ctx: llama_context) -> llama_model:
    return ctx.model
