"""The last phase of loading: which device each layer goes to, a struct for every weight, and bytes for it.

Mirrors: llama_model::load_tensors of llama.cpp/src/llama-model.cpp.

For each weight the buffer types of its layer are tried in turn (weight_buft.py). Weights that end up in the same kind
share a context; with a mapped file the CPU's context gets a buffer laid right over the map ("CPU_Mapped").

Leaves out: splitting single matrices over several GPUs by rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ..ggml import (
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
    GGML_BACKEND_DEVICE_TYPE_ACCEL,
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGML_OP_ADD,
    GGML_OP_MUL,
    GGML_OP_ROPE,
    GGML_TYPE_F32,
    NULL,
    ggml_backend_alloc_ctx_tensors_from_buft,
    ggml_backend_buffer,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_name,
    ggml_backend_buffer_set_usage,
    ggml_backend_buffer_type,
    ggml_backend_buft_get_device,
    ggml_backend_buft_is_host,
    ggml_backend_buft_name,
    ggml_backend_dev_backend_reg,
    ggml_backend_dev_buffer_from_host_ptr,
    ggml_backend_dev_buffer_type,
    ggml_backend_dev_by_type,
    ggml_backend_dev_count,
    ggml_backend_dev_get,
    ggml_backend_dev_get_props,
    ggml_backend_dev_host_buffer_type,
    ggml_backend_dev_memory,
    ggml_backend_dev_name,
    ggml_backend_dev_type_of,
    ggml_backend_device,
    ggml_backend_reg_get_proc_address,
    ggml_context,
    ggml_get_first_tensor,
    ggml_get_next_tensor,
    ggml_get_tensor,
    ggml_init,
    ggml_init_params,
    ggml_nbytes,
    ggml_op_name,
    ggml_tensor,
    ggml_tensor_overhead,
    ggml_type_name,
    gguf_get_alignment,
)
from ..ggml.quants import row_functions
from .arch import LLM_TENSOR_LAYER_INPUT, LLM_TENSOR_LAYER_OUTPUT, LLM_TENSOR_OUTPUT, LLM_TENSOR_TOKEN_EMBD, LLM_TN_IMPL
from .loader import TENSOR_DUPLICATED, TENSOR_NOT_REQUIRED, llama_model_loader
from .mlock import llama_mlock
from .model import BuftList, layer_dev, llama_layer, llama_model, llama_model_params
from .weight_buft import select_weight_buft

MiB = 1024.0 * 1024.0

# The CPU's buffers begin on multiples of this; so must the data in a file to be used in place.
CPU_BUFFER_ALIGNMENT = 32

# Weights of these ops are floats; the others are matrices, of any type that a mul_mat can read.
FLOAT_OPS = (GGML_OP_ADD, GGML_OP_MUL, GGML_OP_ROPE)


def load_tensors(ml: llama_model_loader, model: llama_model, params: llama_model_params) -> bool:
    """Make all weights and load their bytes. False when the progress callback cancelled."""
    make_buft_lists(model, params.use_extra_bufts)
    assign_layers(model, params)
    check_alignment(ml)

    creator = TensorCreator(ml, model)
    for _il in range(model.hparams.n_layer):
        layer = llama_layer()
        model.layers.append(layer)
    model.arch.load_tensors(model, creator.create_tensor)
    creator.report_moved()
    ml.done_getting_tensors()

    mlock_mmaps = model.mlock_mmaps if params.use_mlock else None
    ml.init_mappings(params.prefetch, mlock_mmaps)
    ctx_bufs = create_buffers(ml, model, params, creator.ctx_map)
    print_buffers(model, params)

    # the weights by name
    for ctx in model.ctxs:
        cur = ggml_get_first_tensor(ctx)
        while cur is not None:
            model.tensors_by_name[cur.name] = cur
            cur = ggml_get_next_tensor(ctx, cur)

    # load the data
    for ctx, bufs in ctx_bufs:
        if not ml.load_all_data(ctx, bufs, mlock_mmaps, params.progress_callback):
            return False

    # the maps are the model's from now on
    model.mappings = ml.mappings
    ml.mappings = []
    return True


# ----------------------------------------------------------------------------------------------------------------------
# devices and kinds of memory


def make_buft_lists(model: llama_model, use_extra_bufts: bool) -> None:
    """For the CPU and for each GPU, the kinds of memory its weights may go to, best first."""
    model.cpu_buft_list = make_cpu_buft_list(model.devices, use_extra_bufts)
    for i, dev in enumerate(model.devices):
        buft_list = make_gpu_buft_list(dev)
        # what the GPU cannot hold or use goes to the CPU
        buft_list += model.cpu_buft_list
        model.gpu_buft_list[i] = buft_list


def make_cpu_buft_list(devices: Sequence[ggml_backend_device], use_extra_bufts: bool) -> BuftList:
    """ACCEL devices' memory, a GPU's pinned host memory, memory for repacked weights, plain CPU memory.

    stepggml: repacked weights only on demand, for their bytes are not to be read at tensor.data.
    """
    buft_list: BuftList = []
    for i in range(ggml_backend_dev_count()):
        dev = ggml_backend_dev_get(i)
        if ggml_backend_dev_type_of(dev) == GGML_BACKEND_DEVICE_TYPE_ACCEL:
            buft = ggml_backend_dev_buffer_type(dev)
            # one that computes in plain CPU memory has no memory of its own
            if buft is not ggml_backend_dev_buffer_type(cpu_device()):
                buft_list.append((dev, buft))

    # host memory that the first GPU can copy from quickly
    for dev in devices:
        buft = ggml_backend_dev_host_buffer_type(dev)
        if buft is not None:
            buft_list.append((dev, buft))
            break

    # what the CPU offers for matrices that are only multiplied
    cpu_dev = cpu_device()
    reg = ggml_backend_dev_backend_reg(cpu_dev)
    ggml_backend_dev_get_extra_bufts = ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts")
    if use_extra_bufts and ggml_backend_dev_get_extra_bufts is not None:
        for buft in ggml_backend_dev_get_extra_bufts(cpu_dev):
            buft_list.append((cpu_dev, buft))

    buft_list.append((cpu_dev, ggml_backend_dev_buffer_type(cpu_dev)))
    return buft_list


def make_gpu_buft_list(dev: ggml_backend_device) -> BuftList:
    """A GPU's own memory."""
    buft = ggml_backend_dev_buffer_type(dev)
    return [(dev, buft)]


def cpu_device() -> ggml_backend_device:
    dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)
    if dev is None:
        raise RuntimeError("no CPU backend found")
    return dev


def device_splits(model: llama_model, params: llama_model_params) -> list[float]:
    """Where the share of each GPU ends, 0 to 1: as the user says, or by free memory."""
    shares = []
    for i, dev in enumerate(model.devices):
        if any(params.tensor_split):
            share = params.tensor_split[i] if i < len(params.tensor_split) else 0.0
        else:
            free, _total = ggml_backend_dev_memory(dev)
            share = float(free)
        shares.append(share)

    # devices that tell nothing get equal shares
    total = sum(shares)
    if total == 0.0:
        shares = [1.0] * len(shares)
        total = float(len(shares))
    splits = []
    end = 0.0
    for share in shares:
        end += share
        splits.append(end / total)
    return splits


def assign_layers(model: llama_model, params: llama_model_params) -> None:
    """The last n_gpu_layers layers go to the GPUs; the output counts as one more layer, the input stays on the CPU."""
    n_layer = model.hparams.n_layer
    n_gpu_layers = params.n_gpu_layers
    splits = device_splits(model, params)
    i_gpu_start = max(n_layer - n_gpu_layers, 0)
    act_gpu_layers = 0
    if model.devices:
        act_gpu_layers = min(n_gpu_layers, n_layer + 1)

    # very little is gained by having the token embeddings elsewhere
    model.dev_input = layer_dev(cpu_device(), model.cpu_buft_list)
    model.dev_layers = []
    for il in range(n_layer):
        dev = layer_device(model, il, i_gpu_start, act_gpu_layers, splits)
        model.dev_layers.append(dev)
    model.dev_output = layer_device(model, n_layer, i_gpu_start, act_gpu_layers, splits)


def layer_device(
    model: llama_model, il: int, i_gpu_start: int, act_gpu_layers: int, splits: Sequence[float]
) -> layer_dev:
    """Where layer `il` goes."""
    if il < i_gpu_start or il - i_gpu_start >= act_gpu_layers:
        return layer_dev(cpu_device(), model.cpu_buft_list)
    share = (il - i_gpu_start) / act_gpu_layers
    layer_gpu = bisect_right(splits, share)
    return layer_dev(model.devices[layer_gpu], model.gpu_buft_list[layer_gpu])


def check_alignment(ml: llama_model_loader) -> None:
    """stepggml: data on odd addresses cannot be used in place; C aborts."""
    alignment = gguf_get_alignment(ml.meta)
    if ml.use_mmap and alignment % CPU_BUFFER_ALIGNMENT != 0:
        what = f"alignment {alignment} is not a multiple of {CPU_BUFFER_ALIGNMENT}"
        GGML_LOG_WARN(f"load_tensors: {what}: the file is read instead of mapped\n")
        ml.use_mmap = False


# ----------------------------------------------------------------------------------------------------------------------
# structs


class TensorCreator:
    """Makes the weights' structs, each in the context of the memory it will go to. C: lambdas inside load_tensors.

    Fields: ctx_map (buffer type -> context); n_moved (weights that could not go to the first kind of memory).
    """

    def __init__(self, ml: llama_model_loader, model: llama_model) -> None:
        self.ml = ml
        self.model = model
        self.ctx_map: dict[ggml_backend_buffer_type, ggml_context] = {}
        self.n_moved = 0
        # per op, type, shape and list (the lists are the model's, so each keeps its id)
        self.bufts: dict[tuple[int, ...], ggml_backend_buffer_type | None] = {}
        # enough for all tensors, and the output and rope factors once more in every layer
        max_n_tensors = ml.n_tensors + 1 + model.hparams.n_layer * 2
        self.ctx_size = ggml_tensor_overhead() * max_n_tensors

    def ctx_for_buft(self, buft: ggml_backend_buffer_type) -> ggml_context:
        """The context of a kind of memory."""
        if buft not in self.ctx_map:
            params = ggml_init_params(mem_size=self.ctx_size, mem_buffer=NULL, no_alloc=True)
            ctx = ggml_init(params)
            self.ctx_map[buft] = ctx
            self.model.ctxs.append(ctx)
        return self.ctx_map[buft]

    def create_tensor(self, tn: LLM_TN_IMPL, ne: Sequence[int], flags: int = 0) -> ggml_tensor | None:
        """The weight `tn` of shape `ne`; None when the file has none and TENSOR_NOT_REQUIRED is set."""
        ml = self.ml
        name = tn.str()
        required = not (flags & TENSOR_NOT_REQUIRED)
        t_meta = ml.check_tensor_dims(name, ne, required)
        if t_meta is None:
            return None

        # token embeddings asked for a second time serve as the output
        info = tn.tensor
        if info is LLM_TENSOR_TOKEN_EMBD and flags & TENSOR_DUPLICATED:
            info = LLM_TENSOR_OUTPUT
        op = info.op
        if tn.suffix == "bias":
            op = GGML_OP_ADD
        self.check_type(name, t_meta, op)

        buft_list = self.buft_list_of(info.layer, tn.bid)
        buft = self.buft_for(t_meta, op, buft_list)
        if buft is None:
            raise ml.error(f"no device can run {ggml_op_name(op)} with tensor '{name}'")
        if buft is not buft_list[0][1]:
            self.n_moved += 1
        buft = self.avoid_host_buffer(buft)
        ctx = self.ctx_for_buft(buft)

        # in the same memory one copy is enough
        if flags & TENSOR_DUPLICATED:
            tensor = ggml_get_tensor(ctx, name)
            if tensor is not None:
                return tensor
        return ml.create_tensor(ctx, tn, ne, flags)

    def buft_for(self, t_meta: ggml_tensor, op: int, buft_list: BuftList) -> ggml_backend_buffer_type | None:
        """The first kind of memory that will do, or None. stepggml: weights that are alike share one answer."""
        kind = (op, t_meta.type, *t_meta.ne, id(buft_list))
        if kind not in self.bufts:
            self.bufts[kind] = select_weight_buft(self.model.hparams, t_meta, op, buft_list)
        return self.bufts[kind]

    def buft_list_of(self, layer: int, bid: int) -> BuftList:
        """The kinds of memory for a tensor of the input, the output, or layer `bid`."""
        if layer == LLM_TENSOR_LAYER_INPUT:
            return self.model.dev_input.buft_list
        if layer == LLM_TENSOR_LAYER_OUTPUT:
            return self.model.dev_output.buft_list
        return self.model.dev_layers[bid].buft_list

    def avoid_host_buffer(self, buft: ggml_backend_buffer_type) -> ggml_backend_buffer_type:
        """With a mapped file, plain CPU memory instead of pinned host memory: the map can be used in place."""
        buft_dev = ggml_backend_buft_get_device(buft)
        if self.ml.use_mmap and buft_dev is not None:
            if buft is ggml_backend_dev_host_buffer_type(buft_dev):
                return ggml_backend_dev_buffer_type(cpu_device())
        return buft

    def check_type(self, name: str, t_meta: ggml_tensor, op: int) -> None:
        """stepggml: types that no kernel and no reference can compute with. C finds out when the graph runs."""
        if t_meta.type not in row_functions:
            got = ggml_type_name(t_meta.type)
            raise self.ml.error(f"tensor '{name}' has type {got}, which cannot be computed with")
        if op in FLOAT_OPS and t_meta.type != GGML_TYPE_F32:
            got = ggml_type_name(t_meta.type)
            raise self.ml.error(f"tensor '{name}' has wrong type; expected f32, got {got}")

    def report_moved(self) -> None:
        """Log how many weights went to another memory than the first choice."""
        if self.n_moved > 0:
            GGML_LOG_INFO(f"load_tensors: {self.n_moved} tensors could not go to the preferred kind of memory\n")


# ----------------------------------------------------------------------------------------------------------------------
# buffers


def create_buffers(
    ml: llama_model_loader,
    model: llama_model,
    params: llama_model_params,
    ctx_map: dict[ggml_backend_buffer_type, ggml_context],
) -> list[tuple[ggml_context, dict[int, ggml_backend_buffer]]]:
    """Memory for each context: over the mapped files where its device can use them, else a buffer of its own.

    Returns each context with its buffers by the number of the file.
    """
    ctx_bufs = []
    for buft, ctx in ctx_map.items():
        # a context without tensors needs nothing
        if ggml_get_first_tensor(ctx) is None:
            continue
        dev = ggml_backend_buft_get_device(buft)
        if dev is None:
            # the CPU's own type does not name its device
            dev = cpu_device()
        props = ggml_backend_dev_get_props(dev)
        is_default_buft = buft is ggml_backend_dev_buffer_type(dev)

        if ml.use_mmap and is_default_buft and props.caps.buffer_from_host_ptr:
            buf_map = map_buffers(ml, model, dev, ctx)
        else:
            buf_map = allocate_buffer(ml, model, params, buft, ctx)

        # an op is kept where its weights are
        for buf in buf_map.values():
            ggml_backend_buffer_set_usage(buf, GGML_BACKEND_BUFFER_USAGE_WEIGHTS)
        ctx_bufs.append((ctx, buf_map))
    return ctx_bufs


def map_buffers(
    ml: llama_model_loader, model: llama_model, dev: ggml_backend_device, ctx: ggml_context
) -> dict[int, ggml_backend_buffer]:
    """A buffer over the part of each mapped file that holds tensors of `ctx`."""
    max_size = ggml_get_max_tensor_size(ctx)
    buf_map = {}
    for idx in range(len(ml.files)):
        first, last, addr = ml.get_mapping_range(idx, ctx)
        if first >= last:
            continue
        buf = ggml_backend_dev_buffer_from_host_ptr(dev, addr + first, last - first, max_size)
        if buf is None:
            raise MemoryError(f"unable to use the mapped file on device {ggml_backend_dev_name(dev)}")
        model.bufs.append(buf)
        buf_map[idx] = buf
    return buf_map


def allocate_buffer(
    ml: llama_model_loader,
    model: llama_model,
    params: llama_model_params,
    buft: ggml_backend_buffer_type,
    ctx: ggml_context,
) -> dict[int, ggml_backend_buffer]:
    """One buffer for all tensors of `ctx`; the bytes will be copied there."""
    buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft)
    if buf is None:
        raise MemoryError(f"unable to allocate {ggml_backend_buft_name(buft)} buffer")
    model.bufs.append(buf)
    if params.use_mlock and ggml_backend_buft_is_host(buft):
        mlock_buf = llama_mlock()
        model.mlock_bufs.append(mlock_buf)
        mlock_buf.init(ggml_backend_buffer_get_base(buf))
        mlock_buf.grow_to(ggml_backend_buffer_get_size(buf))
    buf_map = {}
    for idx in range(len(ml.files)):
        buf_map[idx] = buf
    return buf_map


def ggml_get_max_tensor_size(ctx: ggml_context) -> int:
    """Bytes of the largest tensor."""
    max_size = 0
    tensor = ggml_get_first_tensor(ctx)
    while tensor is not None:
        max_size = max(max_size, ggml_nbytes(tensor))
        tensor = ggml_get_next_tensor(ctx, tensor)
    return max_size


def print_buffers(model: llama_model, params: llama_model_params) -> None:
    """Log where the model went."""
    n_layer = model.hparams.n_layer
    if model.devices:
        n_offloaded = min(params.n_gpu_layers, n_layer + 1)
        GGML_LOG_INFO(f"load_tensors: offloaded {n_offloaded}/{n_layer + 1} layers to GPU\n")
    for buf in model.bufs:
        name = ggml_backend_buffer_name(buf)
        size = ggml_backend_buffer_get_size(buf)
        GGML_LOG_INFO(f"load_tensors: {name:>12s} model buffer size = {size / MiB:8.2f} MiB\n")
