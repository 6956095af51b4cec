"""Loading a GPT-2 model from a .bin file, phase by phase in the order of the file.

Mirrors: gpt2_model_load of ggml/examples/gpt-2/main-backend.cpp. There it is one function of 340 lines; here each of
its blocks is a function, and gpt2_model_load is their table of contents. The file: magic, hyper-parameters,
vocabulary, then tensors until its end.

Errors: C prints a message and returns false. Here the same message is a GGMLFileError. Checks that C does not make
are marked "stepggml:". Leaves out: the CUDA backend as a build option. A backend is looked up by name or kind in the
registry.
"""

from __future__ import annotations

import os

from ..ggml import (
    GGML_BACKEND_DEVICE_TYPE_GPU,
    GGML_FILE_MAGIC,
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGML_QNT_VERSION,
    GGML_QNT_VERSION_FACTOR,
    GGML_TYPE_F32,
    NULL,
    GGMLFileError,
    ggml_backend_alloc_ctx_tensors,
    ggml_backend_alloc_ctx_tensors_from_buft,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_is_host,
    ggml_backend_buffer_type,
    ggml_backend_dev_backend_reg,
    ggml_backend_get_default_buffer_type,
    ggml_backend_get_device,
    ggml_backend_init_by_name,
    ggml_backend_init_by_type,
    ggml_backend_name,
    ggml_backend_reg_get_proc_address,
    ggml_blck_size,
    ggml_ftype_to_ggml_type,
    ggml_init,
    ggml_init_params,
    ggml_is_quantized,
    ggml_nbytes,
    ggml_nelements,
    ggml_new_tensor_1d,
    ggml_new_tensor_2d,
    ggml_set_name,
    ggml_tensor,
    ggml_tensor_overhead,
    ggml_type_name,
    ggml_type_size,
)
from .graph import GPT2_MAX_NODES, n_graph_nodes
from .model import free_model, gpt2_hparams, gpt2_layer, gpt2_model
from .model_file import ModelFile, TensorHeader, read_tensor_header
from .vocab import gpt_vocab

# The first bytes of other formats people try, to say what the file is.
GGUF_MAGIC = 0x46554747

# F32, F16, Q4_0, Q4_1, Q8_0, Q5_0, Q5_1
SUPPORTED_FTYPES = (0, 1, 2, 3, 7, 8, 9)

MB = 1024.0 * 1024.0


def gpt2_model_load(
    fname: str,
    model: gpt2_model,
    vocab: gpt_vocab,
    n_ctx: int,
    n_gpu_layers: int = 0,
    backend_name: str = "",
    use_extra_bufts: bool = False,
) -> None:
    """Fill `model` and `vocab` from the file `fname`. C: gpt2_model_load.

    n_ctx is the context size to make room for, in tokens; it may exceed the positions the model knows. backend_name
    is a device of the registry ("CPU", "CUDA0", ...); without it, n_gpu_layers > 0 asks for a GPU, and the CPU is the
    fallback. use_extra_bufts: see weights_buft.

    Raises GGMLFileError, and MemoryError when a buffer cannot be had. On any error the model is freed.
    """
    GGML_LOG_INFO(f"gpt2_model_load: loading model from '{fname}'\n")
    try:
        with ModelFile(fname) as fin:
            # the head of the file: what kind of model this is
            verify_magic(fin)
            load_hparams(fin, model.hparams)
            load_vocab(fin, model.hparams, vocab)
            wtype = choose_weight_type(fin, model.hparams)

            # structs for the weights, then a place for their data: first a pool, then a backend's buffer
            create_weights_context(model)
            init_backend(model, n_gpu_layers, backend_name)
            create_weights(model, wtype)
            allocate_weights(fin, model, use_extra_bufts)

            # memory for keys and values: the only thing whose size is the user's choice
            override_n_ctx(model, n_ctx)
            create_kv_memory(model)

            # the rest of the file
            load_weights(fin, model)
    except BaseException:
        free_model(model)
        raise


def verify_magic(fin: ModelFile) -> None:
    """The first four bytes must be "ggml" as a little-endian number: 6c 6d 67 67."""
    magic = fin.read_u32("the magic")
    # stepggml: the format that replaced this one deserves a word of its own
    if magic == GGUF_MAGIC:
        raise GGMLFileError(fin.path, "invalid model file (bad magic)", "this is a GGUF file, not a gpt-2 .bin")
    if magic != GGML_FILE_MAGIC:
        hint = f"got 0x{magic:08x}, expected 0x{GGML_FILE_MAGIC:08x}"
        raise GGMLFileError(fin.path, "invalid model file (bad magic)", hint)


def load_hparams(fin: ModelFile, hparams: gpt2_hparams) -> None:
    """Read the hyper-parameters and print them."""
    qntvr = read_hparams(fin, hparams)

    GGML_LOG_INFO(f"gpt2_model_load: n_vocab = {hparams.n_vocab}\n")
    GGML_LOG_INFO(f"gpt2_model_load: n_ctx   = {hparams.n_ctx}\n")
    GGML_LOG_INFO(f"gpt2_model_load: n_embd  = {hparams.n_embd}\n")
    GGML_LOG_INFO(f"gpt2_model_load: n_head  = {hparams.n_head}\n")
    GGML_LOG_INFO(f"gpt2_model_load: n_layer = {hparams.n_layer}\n")
    GGML_LOG_INFO(f"gpt2_model_load: ftype   = {hparams.ftype}\n")
    GGML_LOG_INFO(f"gpt2_model_load: qntvr   = {qntvr}\n")
    if hparams.ftype > 1 and qntvr != GGML_QNT_VERSION:
        GGML_LOG_WARN(f"gpt2_model_load: got quantization version {qntvr}, expected {GGML_QNT_VERSION}\n")


def read_hparams(fin: ModelFile, hparams: gpt2_hparams) -> int:
    """Six numbers. The last also carries the version of the quantized block formats, 1000*version + ftype; returns that
    version.
    """
    # six little-endian 32-bit integers, right after the magic: bytes 4 to 27
    hparams.n_vocab = fin.read_i32("the hyper-parameters")
    hparams.n_ctx = fin.read_i32("the hyper-parameters")
    hparams.n_embd = fin.read_i32("the hyper-parameters")
    hparams.n_head = fin.read_i32("the hyper-parameters")
    hparams.n_layer = fin.read_i32("the hyper-parameters")
    hparams.ftype = fin.read_i32("the hyper-parameters")
    check_hparams(fin, hparams)

    # 2007 is Q8_0 in version 2 of the block formats; F32 and F16 files carry no version
    qntvr = hparams.ftype // GGML_QNT_VERSION_FACTOR
    hparams.ftype %= GGML_QNT_VERSION_FACTOR
    return qntvr


def check_hparams(fin: ModelFile, hparams: gpt2_hparams) -> None:
    """stepggml: refuse numbers that no model of this size can have, before anything is allocated by them."""
    # counts are signed in the file
    for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"):
        value = getattr(hparams, name)
        if value < 1:
            raise GGMLFileError(fin.path, f"bad hyper-parameter {name}: got {value}, expected at least 1")
    if hparams.ftype < 0:
        raise GGMLFileError(fin.path, f"invalid model file (bad ftype value {hparams.ftype})")

    # each head gets an equal share of the embedding
    if hparams.n_embd % hparams.n_head != 0:
        what = f"got {hparams.n_head}, expected a divisor of n_embd = {hparams.n_embd}"
        raise GGMLFileError(fin.path, f"bad hyper-parameter n_head: {what}")

    # a graph has room for GPT2_MAX_NODES nodes and as many leafs
    if n_graph_nodes(hparams.n_layer) > GPT2_MAX_NODES:
        what = f"got {hparams.n_layer}, more than fit into a graph of {GPT2_MAX_NODES} nodes"
        raise GGMLFileError(fin.path, f"bad hyper-parameter n_layer: {what}")

    # the weights take at least half a byte each, and every token a length: wte, wpe, and 12*n_embd^2 per layer
    # (Python's integers do not overflow, so the product is right however wild the numbers are)
    n_weights = hparams.n_embd * (hparams.n_vocab + hparams.n_ctx + 12 * hparams.n_embd * hparams.n_layer)
    n_bytes = n_weights // 2 + 4 * hparams.n_vocab
    if n_bytes > fin.left:
        raise fin.truncated(n_bytes, "the weights that the hyper-parameters announce")


def load_vocab(fin: ModelFile, hparams: gpt2_hparams, vocab: gpt_vocab) -> None:
    """The count of tokens once more, then each token: its length and its bytes."""
    # the file says it twice; both must agree
    n_vocab = fin.read_i32("the vocabulary")
    if n_vocab != hparams.n_vocab:
        raise GGMLFileError(fin.path, f"invalid model file (bad vocab size {n_vocab} != {hparams.n_vocab})")

    # tokens are raw bytes: a leading blank is a blank, and half a UTF-8 character may be a token
    words = fin.read_strings(n_vocab, "the vocabulary")
    vocab.add_tokens(words)


def choose_weight_type(fin: ModelFile, hparams: gpt2_hparams) -> int:
    """The type of the big matrices. Norms, biases and position embeddings are F32 in every file.

    C's check comes after ggml_ftype_to_ggml_type, which aborts on an unknown value: its message can never appear.
    Here it can.
    """
    if hparams.ftype not in SUPPORTED_FTYPES:
        raise GGMLFileError(fin.path, f"invalid model file (bad ftype value {hparams.ftype})")
    wtype = ggml_ftype_to_ggml_type(hparams.ftype)

    # stepggml: every row, of n_embd or a multiple of it, must be whole blocks
    blck_size = ggml_blck_size(wtype)
    if hparams.n_embd % blck_size != 0:
        what = f"got {hparams.n_embd}, expected a multiple of {blck_size} for {ggml_type_name(wtype)}"
        raise GGMLFileError(fin.path, f"bad hyper-parameter n_embd: {what}")
    return wtype


def create_weights_context(model: gpt2_model) -> None:
    """The pool for the weights' tensor structs. Slots for 2 + 6 + 12*n_layer are made; 5 + 12*n_layer get used."""
    # ln_f_g, ln_f_b, wte, wpe, lm_head and three more than that; then twelve per layer
    n_tensors = 2 + 6 + 12 * model.hparams.n_layer

    # 32 bytes of object header and 336 of struct each; no_alloc: the data will lie elsewhere
    overhead = ggml_tensor_overhead()
    params = ggml_init_params(mem_size=overhead * n_tensors, mem_buffer=NULL, no_alloc=True)
    model.ctx_w = ggml_init(params)


def init_backend(model: gpt2_model, n_gpu_layers: int, backend_name: str) -> None:
    """A stream of the device that will hold the weights and run the graphs."""
    # C decides at compile time; here the registry is asked by name, or for the first device of a kind
    if backend_name:
        model.backend = ggml_backend_init_by_name(backend_name, None)
    elif n_gpu_layers > 0:
        model.backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_GPU, None)

    # fallback to the CPU backend
    if model.backend is None:
        if backend_name or n_gpu_layers > 0:
            GGML_LOG_WARN(f"gpt2_model_load: no backend '{backend_name or 'GPU'}', using the CPU\n")
        model.backend = ggml_backend_init_by_name("CPU", None)
    if model.backend is None:
        raise RuntimeError("gpt2_model_load: the CPU backend failed to start")
    name = ggml_backend_name(model.backend)
    GGML_LOG_INFO(f"gpt2_model_load: using {name} backend\n")


def create_weights(model: gpt2_model, wtype: int) -> None:
    """A tensor struct for every weight, in the pool of ctx_w; no data yet. Names go only into model.tensors."""
    ctx = model.ctx_w
    n_embd = model.hparams.n_embd
    n_vocab = model.hparams.n_vocab
    n_ctx = model.hparams.n_ctx

    # the order of creation is the order in the buffer later on
    model.ln_f_g = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)
    model.ln_f_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)
    model.wte = ggml_new_tensor_2d(ctx, wtype, n_embd, n_vocab)
    model.wpe = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_embd, n_ctx)
    model.lm_head = ggml_new_tensor_2d(ctx, wtype, n_embd, n_vocab)

    # the file's names; the tensors themselves stay nameless until they are read
    model.tensors["model/ln_f/g"] = model.ln_f_g
    model.tensors["model/ln_f/b"] = model.ln_f_b
    model.tensors["model/wte"] = model.wte
    model.tensors["model/wpe"] = model.wpe
    model.tensors["model/lm_head"] = model.lm_head

    for i in range(model.hparams.n_layer):
        layer = gpt2_layer()
        create_layer(model, layer, wtype)
        map_layer(model, layer, i)
        model.layers.append(layer)


def create_layer(model: gpt2_model, layer: gpt2_layer, wtype: int) -> None:
    """The twelve tensors of one block."""
    ctx = model.ctx_w
    n_embd = model.hparams.n_embd

    # scale and shift of the two norms: vectors are F32 in every file
    layer.ln_1_g = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)
    layer.ln_1_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)
    layer.ln_2_g = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)
    layer.ln_2_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)

    # attention. ne = [in, out]: a row is the weights of one output, ready to be multiplied with an input row
    layer.c_attn_attn_w = ggml_new_tensor_2d(ctx, wtype, n_embd, 3 * n_embd)
    layer.c_attn_attn_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 3 * n_embd)
    layer.c_attn_proj_w = ggml_new_tensor_2d(ctx, wtype, n_embd, n_embd)
    layer.c_attn_proj_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)

    # mlp: four times as wide inside
    layer.c_mlp_fc_w = ggml_new_tensor_2d(ctx, wtype, n_embd, 4 * n_embd)
    layer.c_mlp_fc_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 4 * n_embd)
    layer.c_mlp_proj_w = ggml_new_tensor_2d(ctx, wtype, 4 * n_embd, n_embd)
    layer.c_mlp_proj_b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_embd)


def map_layer(model: gpt2_model, layer: gpt2_layer, i: int) -> None:
    """Enter block i's tensors in the map, under the names of the file."""
    prefix = f"model/h{i}/"
    model.tensors[prefix + "ln_1/g"] = layer.ln_1_g
    model.tensors[prefix + "ln_1/b"] = layer.ln_1_b
    model.tensors[prefix + "ln_2/g"] = layer.ln_2_g
    model.tensors[prefix + "ln_2/b"] = layer.ln_2_b
    model.tensors[prefix + "attn/c_attn/w"] = layer.c_attn_attn_w
    model.tensors[prefix + "attn/c_attn/b"] = layer.c_attn_attn_b
    model.tensors[prefix + "attn/c_proj/w"] = layer.c_attn_proj_w
    model.tensors[prefix + "attn/c_proj/b"] = layer.c_attn_proj_b
    model.tensors[prefix + "mlp/c_fc/w"] = layer.c_mlp_fc_w
    model.tensors[prefix + "mlp/c_fc/b"] = layer.c_mlp_fc_b
    model.tensors[prefix + "mlp/c_proj/w"] = layer.c_mlp_proj_w
    model.tensors[prefix + "mlp/c_proj/b"] = layer.c_mlp_proj_b


def weights_buft(model: gpt2_model, use_extra_bufts: bool) -> ggml_backend_buffer_type:
    """The kind of memory for the weights. C: always the backend's own.

    stepggml: the CPU offers one more, where quantized matrices are rearranged as they are loaded. Their bytes are then
    not to be read at tensor.data, so this is only done on demand.
    """
    device = ggml_backend_get_device(model.backend)
    reg = ggml_backend_dev_backend_reg(device)
    ggml_backend_dev_get_extra_bufts = ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts")
    if use_extra_bufts and ggml_is_quantized(model.wte.type) and ggml_backend_dev_get_extra_bufts is not None:
        # the best first; none, if the user does not want any
        for buft in ggml_backend_dev_get_extra_bufts(device):
            return buft
    return ggml_backend_get_default_buffer_type(model.backend)


def allocate_weights(fin: ModelFile, model: gpt2_model, use_extra_bufts: bool) -> None:
    """One backend buffer for all weights, wte and lm_head both. Every tensor gets its place in creation order."""
    # stepggml: all weights but lm_head must still come, so they cannot be more than is left of the file
    n_bytes = 0
    for name, tensor in model.tensors.items():
        if name != "model/lm_head":
            n_bytes += ggml_nbytes(tensor)
    if n_bytes > fin.left:
        raise fin.truncated(n_bytes, "the weights")

    GGML_LOG_INFO("gpt2_model_load: ggml tensor size    = 336 bytes\n")

    # adds up the padded sizes, takes one buffer, and points each tensor's data into it
    buft = weights_buft(model, use_extra_bufts)
    model.buffer_w = ggml_backend_alloc_ctx_tensors_from_buft(model.ctx_w, buft)
    if model.buffer_w is None:
        raise MemoryError(f"no memory for {n_bytes / MB:.2f} MB of weights")
    buffer_size = ggml_backend_buffer_get_size(model.buffer_w)
    GGML_LOG_INFO(f"gpt2_model_load: backend buffer size = {buffer_size / MB:6.2f} MB\n")


def override_n_ctx(model: gpt2_model, n_ctx: int) -> None:
    """From here on n_ctx is the context asked for. The rows of wpe stay as many as the file has."""
    # C says nothing here, and stops at an assert of GET_ROWS once a token has no row in wpe
    n_positions = model.wpe.ne[1]
    if n_ctx > n_positions:
        GGML_LOG_WARN(f"gpt2_model_load: n_ctx = {n_ctx}, but the model has only {n_positions} positions\n")
    model.hparams.n_ctx = n_ctx


def create_kv_memory(model: gpt2_model) -> None:
    """Two flat F32 tensors keep the keys and values of all layers and positions.

    They get no name: the first graph gives one.
    """
    n_embd = model.hparams.n_embd
    n_layer = model.hparams.n_layer
    n_ctx = model.hparams.n_ctx

    # one row of n_embd floats per layer and position
    n_mem = n_layer * n_ctx
    n_elements = n_embd * n_mem

    # stepggml: n_ctx comes from the user, so the size is compared with the machine's memory first
    n_bytes = 2 * 4 * n_elements
    n_physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > n_physical:
        what = f"{n_bytes / MB:.0f} MB of keys and values, this machine has {n_physical / MB:.0f} MB"
        raise MemoryError(f"n_ctx = {n_ctx} needs {what}")

    # a pool for just two structs
    overhead = ggml_tensor_overhead()
    params = ggml_init_params(mem_size=overhead * 2, mem_buffer=NULL, no_alloc=True)
    model.ctx_kv = ggml_init(params)
    model.memory_k = ggml_new_tensor_1d(model.ctx_kv, GGML_TYPE_F32, n_elements)
    model.memory_v = ggml_new_tensor_1d(model.ctx_kv, GGML_TYPE_F32, n_elements)

    # memory for keys and values
    model.buffer_kv = ggml_backend_alloc_ctx_tensors(model.ctx_kv, model.backend)
    if model.buffer_kv is None:
        raise MemoryError(f"no memory for {n_bytes / MB:.2f} MB of keys and values")
    memory_size = ggml_backend_buffer_get_size(model.buffer_kv)
    GGML_LOG_INFO(f"gpt2_model_load: memory size = {memory_size / MB:8.2f} MB, n_mem = {n_mem}\n")


def load_weights(fin: ModelFile, model: gpt2_model) -> None:
    """Tensors until the file ends, in any order.

    The lm_head rule: wte serves as the head too, unless a separate lm_head was read *before* it.
    """
    has_lm_head = False
    total_size = 0
    seen: set[str] = set()

    # no count, no end mark: tensors follow each other until the file ends
    while fin.left > 0:
        header = read_tensor_header(fin)
        tensor = find_tensor(fin, model, header, seen)
        check_tensor(fin, tensor, header)
        read_tensor_data(fin, tensor, header)

        # tied weights: the token embedding is the output matrix as well
        if header.name == "model/wte" and not has_lm_head:
            model.lm_head = model.wte
        if header.name == "model/lm_head":
            has_lm_head = True
        total_size += ggml_nbytes(tensor)

    check_complete(fin, model, seen)
    GGML_LOG_INFO(f"gpt2_model_load: model size  = {total_size / MB:8.2f} MB\n")


def find_tensor(fin: ModelFile, model: gpt2_model, header: TensorHeader, seen: set[str]) -> ggml_tensor:
    """The tensor that the name in the file means, which now carries that name."""
    name = header.name
    if name not in model.tensors:
        raise GGMLFileError(fin.path, f"unknown tensor '{name}' in model file")
    # stepggml: C would read it again over the first
    if name in seen:
        raise GGMLFileError(fin.path, f"tensor '{name}' appears twice in model file")
    seen.add(name)

    # from here on graphs show the name
    tensor = model.tensors[name]
    ggml_set_name(tensor, name)
    return tensor


def check_tensor(fin: ModelFile, tensor: ggml_tensor, header: TensorHeader) -> None:
    """Element count, shape and bytes in the file must be those of the model's tensor."""
    # how many
    name = header.name
    if ggml_nelements(tensor) != header.n_elements():
        raise GGMLFileError(fin.path, f"tensor '{name}' has wrong size in model file")

    # in which shape. The labels are swapped, as in ggml: "got" is the model's shape, "expected" is the file's
    ne = header.ne + [1]
    if tensor.ne[0] != ne[0] or tensor.ne[1] != ne[1]:
        what = f"got [{tensor.ne[0]}, {tensor.ne[1]}], expected [{ne[0]}, {ne[1]}]"
        raise GGMLFileError(fin.path, f"tensor '{name}' has wrong shape in model file: {what}")

    # how many bytes: elements * bytes per block of the file's type / elements per block of the model's type
    bpe = ggml_type_size(header.ttype)
    blck_size = ggml_blck_size(tensor.type)
    got = header.n_elements() * bpe // blck_size
    expected = ggml_nbytes(tensor)
    if got != expected:
        raise GGMLFileError(fin.path, f"tensor '{name}' has wrong size in model file: got {got}, expected {expected}")

    # stepggml: another type of the same size would be read as garbage
    if header.ttype != tensor.type:
        what = f"got {ggml_type_name(header.ttype)}, expected {ggml_type_name(tensor.type)}"
        raise GGMLFileError(fin.path, f"tensor '{name}' has wrong type in model file: {what}")


def read_tensor_data(fin: ModelFile, tensor: ggml_tensor, header: TensorHeader) -> None:
    """The tensor's bytes, as they are in the file."""
    n_bytes = ggml_nbytes(tensor)
    what = f"tensor '{header.name}'"
    if ggml_backend_buffer_is_host(tensor.buffer):
        # the buffer is ordinary memory: read straight into it
        fin.read_into(tensor.data, n_bytes, what)
        return

    # the buffer is a device's: read into a temporary buffer first, then copy to device memory
    fin.read_to_device(tensor, n_bytes, what)


def check_complete(fin: ModelFile, model: gpt2_model, seen: set[str]) -> None:
    """stepggml: every weight must have been in the file. (C goes on with whatever the buffer held.)"""
    for name in model.tensors:
        if name not in seen and name != "model/lm_head":
            raise GGMLFileError(fin.path, f"tensor '{name}' is missing from model file")
