"""llama_model_loader: what a model's file or files hold and where, and the way of each tensor from there into memory.

Mirrors: struct llama_model_loader of llama.cpp/src/llama-model-loader.cpp.

Three steps, far apart in time: the constructor reads what the files say (weights_map: name -> file and offset);
create_tensor makes a tensor struct for each weight the model wants; init_mappings and load_all_data give them bytes. A
mapped tensor's bytes are where they are in the file: nothing is copied, a page is read when it is first touched.

Errors: C throws std::runtime_error; here the same words are a GGMLFileError.
Leaves out: upload through pinned memory to devices that can copy while the file is read.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence

from ..ggml import (
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGML_MAX_DIMS,
    GGUF_TYPE_INT32,
    GGUF_TYPE_STRING,
    GGUF_TYPE_UINT16,
    GGUF_TYPE_UINT32,
    NULL,
    GGMLFileError,
    ggml_backend_buffer,
    ggml_backend_buffer_is_host,
    ggml_backend_tensor_alloc,
    ggml_backend_tensor_set,
    ggml_context,
    ggml_dup_tensor,
    ggml_get_first_tensor,
    ggml_get_next_tensor,
    ggml_nbytes,
    ggml_nelements,
    ggml_set_name,
    ggml_tensor,
    ggml_type_name,
    ggml_validate_row_data,
    gguf_context,
    gguf_find_tensor,
    gguf_free,
    gguf_get_data_offset,
    gguf_get_n_kv,
    gguf_get_tensor_offset,
    gguf_get_version,
    gguf_init_from_file,
)
from .arch import (
    LLM_KV,
    LLM_KV_GENERAL_ARCHITECTURE,
    LLM_KV_GENERAL_FILE_TYPE,
    LLM_KV_SPLIT_COUNT,
    LLM_KV_SPLIT_NO,
    LLM_KV_SPLIT_TENSORS_COUNT,
    LLM_TN_IMPL,
)
from .file import llama_file
from .ftype import guess_ftype
from .loader_keys import Keys, Value, quick_init_params
from .mlock import llama_mlock
from .mmap import LLAMA_MMAP_SUPPORTED, llama_mmap

TENSOR_NOT_REQUIRED = 1
TENSOR_DUPLICATED = 2

SIZE_MAX = (1 << 64) - 1

NAME_IN_LAYER = re.compile(r"blk\.([0-9]+)\.")

ProgressCallback = Callable[[float], bool]


class llama_tensor_weight:
    """Where one weight is. Fields: idx (number of the file), offs (bytes from the file's start), n_bytes, tensor (its
    shape).
    """

    def __init__(self, file: llama_file, idx: int, gguf_ctx: gguf_context, tensor: ggml_tensor) -> None:
        self.idx = idx
        self.tensor = tensor
        tensor_idx = gguf_find_tensor(gguf_ctx, tensor.name)
        data_offset = gguf_get_data_offset(gguf_ctx)
        self.offs = data_offset + gguf_get_tensor_offset(gguf_ctx, tensor_idx)
        self.n_bytes = ggml_nbytes(tensor)
        if self.offs + self.n_bytes > file.size:
            what = f"tensor '{tensor.name}' data is not within the file bounds"
            problem = f"{what}: ends at {self.offs + self.n_bytes}, the file at {file.size}"
            raise GGMLFileError(file.fname, problem, "the model is corrupted or incomplete")


def weight_order(name: str) -> tuple[int, str]:
    """How weights are sorted: by the number of their layer (none comes first), then by name."""
    match = NAME_IN_LAYER.match(name)
    layer = -1
    if match is not None:
        layer = int(match.group(1))
    return layer, name


class llama_model_loader(Keys):
    """A model's files, opened. Fields: files, weights_map, mappings, use_mmap, check_tensors; counts n_* and sizes."""

    def __init__(
        self,
        fname: str | os.PathLike,
        splits: Sequence[str] = (),
        use_mmap: bool = True,
        check_tensors: bool = False,
        kv_overrides: dict[str, Value] | None = None,
    ) -> None:
        super().__init__(fname, kv_overrides)
        self.n_kv = 0
        self.n_tensors = 0
        self.n_created = 0
        self.n_elements = 0
        self.n_bytes = 0
        self.ftype = 0
        self.files: list[llama_file] = []
        self.contexts: list[ggml_context] = []
        self.weights_map: dict[str, llama_tensor_weight] = {}
        self.mappings: list[llama_mmap] = []
        self.mmaps_used: list[list[int]] = []  # per file: first and last byte that tensors in host memory use
        self.size_done = 0
        self.size_data = 0
        self.use_mmap = use_mmap
        self.check_tensors = check_tensors

        # the first file, or the only one
        try:
            self.meta = self.open_file(self.fname)
            self.arch_name = self.get_key(
                LLM_KV_GENERAL_ARCHITECTURE, GGUF_TYPE_STRING, required=False, default="unknown"
            )
            self.llm_kv = LLM_KV(self.arch_name)
            self.load_splits(splits)
            self.sort_weights()
            self.print_summary()
        except BaseException:
            self.close()
            raise

        if not LLAMA_MMAP_SUPPORTED and self.use_mmap:
            GGML_LOG_WARN("llama_model_loader: mmap is not supported on this platform\n")
            self.use_mmap = False

    def close(self) -> None:
        """Close the files. Mappings that were not taken over are unmapped. C: the destructor."""
        for file in self.files:
            file.close()
        for mapping in self.mappings:
            mapping.close()
        self.mappings = []
        gguf_free(self.meta)

    # ------------------------------------------------------------------------------------------------------------------
    # what the files hold

    def open_file(self, fname: str) -> gguf_context:
        """Open one GGUF file and note where its tensors are."""
        params = quick_init_params()
        meta = gguf_init_from_file(fname, params)
        file = llama_file(fname, "rb")
        idx = len(self.files)
        self.files.append(file)
        self.contexts.append(params.ctx)

        cur = ggml_get_first_tensor(params.ctx)
        while cur is not None:
            tensor_name = cur.name
            # no two tensors may have the same name, in whatever file
            if tensor_name in self.weights_map:
                raise self.error(f"invalid model: tensor '{tensor_name}' is duplicated")
            weight = llama_tensor_weight(file, idx, meta, cur)
            self.n_elements += ggml_nelements(cur)
            self.n_bytes += weight.n_bytes
            self.weights_map[tensor_name] = weight
            cur = ggml_get_next_tensor(params.ctx, cur)
        return meta

    def load_splits(self, splits: Sequence[str]) -> None:
        """Open the other files of a model that is split, and check that nothing is missing."""
        n_split = self.get_key(LLM_KV_SPLIT_COUNT, GGUF_TYPE_UINT16, required=False, default=0)
        if n_split > 1:
            # the first file must be loaded first
            idx = self.get_key(LLM_KV_SPLIT_NO, GGUF_TYPE_UINT16)
            if idx != 0:
                raise self.error(f"illegal split file idx: {idx}", "the model must be loaded with the first split")
            if not splits:
                splits = llama_get_list_splits(self, idx, n_split)
            if len(splits) != n_split:
                raise self.error(f"invalid split count, given: {len(splits)} splits, but expected {n_split}")
            GGML_LOG_INFO(f"llama_model_loader: loading additional {n_split - 1} GGUFs\n")
            for idx in range(1, n_split):
                self.load_split(splits[idx], idx)

            n_tensors = self.get_key(LLM_KV_SPLIT_TENSORS_COUNT, GGUF_TYPE_INT32)
            n_loaded = len(self.weights_map)
            if n_tensors != n_loaded:
                raise self.error(f"corrupted model: {n_tensors} tensors expected but {n_loaded} found")
        self.n_kv = gguf_get_n_kv(self.meta)
        self.n_tensors = len(self.weights_map)

    def load_split(self, fname_split: str, idx: int) -> None:
        """Open file number `idx` of a split model; it must say that it is that one."""
        first = self.meta
        meta = self.open_file(fname_split)
        self.meta = meta
        idx_gguf = self.get_key(LLM_KV_SPLIT_NO, GGUF_TYPE_UINT16)
        self.meta = first
        if idx_gguf != idx:
            what = f"invalid split file idx: {idx_gguf}, expected {idx}"
            raise GGMLFileError(fname_split, what, "has the file been renamed?")

    def sort_weights(self) -> None:
        """Order the map as C's std::map with its comparer is: by layer, then by name."""
        ordered = {}
        for name in sorted(self.weights_map, key=weight_order):
            ordered[name] = self.weights_map[name]
        self.weights_map = ordered

    def print_summary(self) -> None:
        """Log the counts, the keys and the types of the tensors, and settle the file type."""
        version = gguf_get_version(self.meta)
        GGML_LOG_INFO(
            f"llama_model_loader: loaded meta data with {self.n_kv} key-value pairs and {self.n_tensors} tensors "
            f"from {self.fname} (version GGUF V{version})\n"
        )
        n_type: dict[int, int] = {}
        for weight in self.weights_map.values():
            type = weight.tensor.type
            n_type[type] = n_type.get(type, 0) + 1
        self.ftype = self.get_key(LLM_KV_GENERAL_FILE_TYPE, GGUF_TYPE_UINT32, required=False)
        if self.ftype is None:
            self.ftype = guess_ftype(n_type)

        self.print_keys()
        for type in sorted(n_type):
            GGML_LOG_INFO(f"llama_model_loader: - type {ggml_type_name(type):>4s}: {n_type[type]:4d} tensors\n")

    def get_arch_name(self) -> str:
        """The value of general.architecture."""
        return self.arch_name

    def get_weight(self, name: str) -> llama_tensor_weight | None:
        """Where a weight is, or None."""
        return self.weights_map.get(name)

    def require_weight(self, name: str) -> llama_tensor_weight:
        """Where a weight is. Raises GGMLFileError when there is none of that name."""
        weight = self.get_weight(name)
        if weight is None:
            raise self.error(f"tensor '{name}' not found")
        return weight

    def get_tensor_meta(self, name: str) -> ggml_tensor | None:
        """Shape and type of a weight, as a tensor without data; or None."""
        weight = self.get_weight(name)
        if weight is None:
            return None
        return weight.tensor

    # ------------------------------------------------------------------------------------------------------------------
    # tensors of the model

    def check_tensor_dims(self, name: str, ne: Sequence[int], required: bool) -> ggml_tensor | None:
        """The weight of that name, which must have the shape `ne`. None when it is absent and not required."""
        cur = self.get_tensor_meta(name)
        if cur is None:
            if not required:
                return None
            raise self.error(f"missing tensor '{name}'")

        expected = list(ne)
        while len(expected) < GGML_MAX_DIMS:
            expected.append(1)
        if list(cur.ne) != expected:
            got = format_tensor_shape(cur.ne)
            raise self.error(f"tensor '{name}' has wrong shape; expected {format_tensor_shape(ne)}, got {got}")
        return cur

    def create_tensor(
        self, ctx: ggml_context, tn: LLM_TN_IMPL, ne: Sequence[int], flags: int = 0
    ) -> ggml_tensor | None:
        """A tensor struct in `ctx` for the weight `tn`, without data. None when it is absent and not required."""
        name = tn.str()
        required = not (flags & TENSOR_NOT_REQUIRED)
        cur = self.check_tensor_dims(name, ne, required)
        if cur is None:
            return None
        tensor = ggml_dup_tensor(ctx, cur)
        ggml_set_name(tensor, name)

        # the same weight for the second time: it will be loaded twice
        if flags & TENSOR_DUPLICATED:
            self.size_data += ggml_nbytes(cur)
        else:
            self.n_created += 1
        return tensor

    def done_getting_tensors(self) -> None:
        """All weights of the file must have been asked for."""
        if self.n_created != self.n_tensors:
            raise self.error(f"wrong number of tensors; expected {self.n_tensors}, got {self.n_created}")

    # ------------------------------------------------------------------------------------------------------------------
    # bytes

    def init_mappings(self, prefetch: bool, mlock_mmaps: list[llama_mlock] | None) -> None:
        """Map the files, if they are to be mapped; add up what there is to load."""
        if self.use_mmap:
            for file in self.files:
                mapping = llama_mmap(file, SIZE_MAX if prefetch else 0, numa=False)
                # an empty range: first behind last
                self.mmaps_used.append([mapping.size, 0])
                if mlock_mmaps is not None:
                    mlock_mmap = llama_mlock()
                    mlock_mmap.init(mapping.addr)
                    mlock_mmaps.append(mlock_mmap)
                self.mappings.append(mapping)

        # the total size, for the progress
        for weight in self.weights_map.values():
            self.size_data += weight.n_bytes

    def get_mapping_range(self, idx: int, ctx: ggml_context) -> tuple[int, int, int]:
        """(first, last, addr): the bytes of file `idx` that the tensors of `ctx` use, and where the file is mapped."""
        mapping = self.mappings[idx]
        first = mapping.size
        last = 0
        tensor = ggml_get_first_tensor(ctx)
        while tensor is not None:
            weight = self.get_weight(tensor.name)
            if weight is not None and weight.idx == idx:
                first = min(first, weight.offs)
                last = max(last, weight.offs + weight.n_bytes)
            tensor = ggml_get_next_tensor(ctx, tensor)
        return first, last, mapping.addr

    def load_all_data(
        self,
        ctx: ggml_context,
        bufs: dict[int, ggml_backend_buffer],
        lmlocks: list[llama_mlock] | None,
        progress_callback: ProgressCallback | None,
    ) -> bool:
        """Give every tensor of `ctx` its bytes. `bufs`: the buffer over each mapped file, by the file's number.

        progress_callback gets the share done before each tensor, 1.0 only at the very end; when it returns False,
        loading ends and so does this function, with False. Raises GGMLFileError for data that check_tensors rejects.
        """
        invalid: list[str] = []
        cur = ggml_get_first_tensor(ctx)
        while cur is not None:
            # this can happen with split experts models, and with tensors that a program adds itself
            weight = self.get_weight(cur.name)
            if weight is not None:
                if progress_callback is not None and not progress_callback(self.share_done()):
                    return False
                if self.use_mmap:
                    self.load_mapped(cur, weight, bufs, lmlocks, invalid)
                else:
                    self.load_read(cur, weight, invalid)
                self.size_done += weight.n_bytes
            cur = ggml_get_next_tensor(ctx, cur)

        # what the checks found
        for name in invalid:
            GGML_LOG_WARN(f"llama_model_loader: tensor '{name}' has invalid data\n")
        if invalid:
            raise self.error(f"found tensors with invalid data: '{invalid[0]}' is the first of {len(invalid)}")

        # everything is loaded: the parts of the files that no tensor in host memory uses can go
        if self.size_done >= self.size_data:
            if self.use_mmap:
                self.unmap_unused()
            if progress_callback is not None:
                return progress_callback(1.0)
        return True

    def share_done(self) -> float:
        """How much of all the data is loaded, 0 to 1."""
        return self.size_done / max(self.size_data, 1)

    def load_mapped(
        self,
        cur: ggml_tensor,
        weight: llama_tensor_weight,
        bufs: dict[int, ggml_backend_buffer],
        lmlocks: list[llama_mlock] | None,
        invalid: list[str],
    ) -> None:
        """Point a tensor into the mapped file, or copy its bytes from there to a device."""
        n_size = weight.n_bytes
        data = self.mappings[weight.idx].addr + weight.offs
        if self.check_tensors and not ggml_validate_row_data(cur.type, data, n_size):
            invalid.append(cur.name)

        buf_mmap = bufs.get(weight.idx)
        if buf_mmap is not None and cur.data == NULL:
            ggml_backend_tensor_alloc(buf_mmap, cur, data)
            if lmlocks is not None:
                lmlocks[weight.idx].grow_to(weight.offs + n_size)
            used = self.mmaps_used[weight.idx]
            used[0] = min(used[0], weight.offs)
            used[1] = max(used[1], weight.offs + n_size)
        else:
            ggml_backend_tensor_set(cur, data, 0, n_size)
            # stepggml: there is a copy now, so these pages of the file need not stay in memory
            self.mappings[weight.idx].advise_unneeded(weight.offs, weight.offs + n_size)

    def load_read(self, cur: ggml_tensor, weight: llama_tensor_weight, invalid: list[str]) -> None:
        """Read a tensor's bytes from the file: straight to their place, or by way of host memory to a device."""
        n_size = weight.n_bytes
        file = self.files[weight.idx]
        file.seek(weight.offs, os.SEEK_SET)
        if ggml_backend_buffer_is_host(cur.buffer):
            file.read_raw(cur.data, n_size)
            if self.check_tensors and not ggml_validate_row_data(cur.type, cur.data, n_size):
                invalid.append(cur.name)
            return

        read_buf = ctypes.create_string_buffer(n_size)
        data = ctypes.addressof(read_buf)
        file.read_raw(data, n_size)
        ggml_backend_tensor_set(cur, data, 0, n_size)
        if self.check_tensors and not ggml_validate_row_data(cur.type, data, n_size):
            raise self.error(f"tensor '{cur.name}' has invalid data")

    def unmap_unused(self) -> None:
        """Unmap what lies before the first and behind the last byte in use: the header, and parts copied elsewhere."""
        for idx, mapping in enumerate(self.mappings):
            first, last = self.mmaps_used[idx]
            mapping.unmap_fragment(0, first)
            if last != 0:
                mapping.unmap_fragment(last, mapping.size)


def format_tensor_shape(ne: Sequence[int]) -> str:
    """Dimensions as llama.cpp prints them: "   64,   512"."""
    parts = []
    for n in ne:
        parts.append(f"{n:5d}")
    return ", ".join(parts)


# ----------------------------------------------------------------------------------------------------------------------
# names of split files


def llama_split_path(path_prefix: str, split_no: int, split_count: int) -> str:
    """Name of file `split_no` (from 0) of `split_count`: "prefix-00001-of-00003.gguf"."""
    return f"{path_prefix}-{split_no + 1:05d}-of-{split_count:05d}.gguf"


def llama_split_prefix(split_path: str, split_no: int, split_count: int) -> str:
    """What stands before the numbers in such a name; empty when it is none."""
    postfix = llama_split_path("", split_no, split_count)
    if not split_path.endswith(postfix):
        return ""
    return split_path.removesuffix(postfix)


def llama_get_list_splits(ml: llama_model_loader, idx: int, n_split: int) -> list[str]:
    """Names of all files of a split model, from the name of number `idx`. Raises GGMLFileError for another name."""
    prefix = llama_split_prefix(ml.fname, idx, n_split)
    if not prefix:
        expected = llama_split_path("<name>", idx, n_split)
        raise ml.error(f"invalid split file name: {os.path.basename(ml.fname)}", f"it must be {expected}")
    paths = []
    for i in range(n_split):
        path = llama_split_path(prefix, i, n_split)
        paths.append(path)
    return paths
