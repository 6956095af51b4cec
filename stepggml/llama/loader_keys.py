"""The keys of a model file, as the loader reads them: typed, required or not, and overridden by the user where asked.

Mirrors: get_key, get_arr and get_key_or_arr of llama.cpp/src/llama-model-loader.cpp, namespace GGUFMeta, and
gguf_kv_to_str of llama-impl.cpp.

In C the type that a key must have follows from the variable it is read into. Here it is said: `get_key(kid, type)`.
"""

from __future__ import annotations

import os

from ..ggml import (
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGUF_TYPE_ARRAY,
    GGUF_TYPE_BOOL,
    GGUF_TYPE_FLOAT32,
    GGUF_TYPE_FLOAT64,
    GGUF_TYPE_STRING,
    GGUF_TYPE_UINT32,
    GGMLFileError,
    ggml_backend_dev_backend_reg,
    ggml_backend_dev_by_type,
    ggml_backend_reg_get_proc_address,
    gguf_context,
    gguf_find_key,
    gguf_get_arr_n,
    gguf_get_arr_str,
    gguf_get_arr_type,
    gguf_get_key,
    gguf_get_kv_type,
    gguf_get_val_data,
    gguf_get_val_str,
    gguf_init_params,
    gguf_type_name,
)
from .arch import LLM_KV

# A value longer than this is cut when it is printed.
MAX_VALUE_LEN = 40

# What a user may override a key with: the value's Python type for each GGUF type.
OVERRIDE_TYPES = {GGUF_TYPE_BOOL: bool, GGUF_TYPE_UINT32: int, GGUF_TYPE_FLOAT32: float, GGUF_TYPE_STRING: str}

Value = int | float | bool | str


def quick_init_params() -> gguf_init_params:
    """How model files are opened. A vocabulary is read by the CPU backend's compiled code, where there is some."""
    params = gguf_init_params(no_alloc=True, make_ctx=True)
    cpu_dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)
    if cpu_dev is not None:
        reg = ggml_backend_dev_backend_reg(cpu_dev)
        params.split_strings = ggml_backend_reg_get_proc_address(reg, "split_strings")
    return params


class Keys:
    """The part of llama_model_loader that knows about keys.

    Fields: fname; meta (gguf_context of the first file); llm_kv (real names of keys); kv_overrides (name -> value).
    """

    def __init__(self, fname: str | os.PathLike, kv_overrides: dict[str, Value] | None) -> None:
        self.fname = os.fspath(fname)
        self.meta: gguf_context | None = None
        self.llm_kv = LLM_KV("unknown")
        self.kv_overrides = kv_overrides or {}

    def error(self, what: str, hint: str = "") -> GGMLFileError:
        """The error for something wrong in the model file."""
        return GGMLFileError(self.fname, what, hint)

    def get_key(self, kid: str, type: int, required: bool = True, default: Value | None = None) -> Value | None:
        """The value of a key. When it is absent: `default`, or an error if it is required.

        Raises GGMLFileError too when the value has another type.
        """
        key = self.llm_kv(kid)
        override = self.get_override(key, type)
        if override is not None:
            return override

        key_id = gguf_find_key(self.meta, key)
        if key_id < 0:
            if required:
                raise self.error(f"key not found in model: {key}")
            return default

        kv_type = gguf_get_kv_type(self.meta, key_id)
        if kv_type != type:
            got = gguf_type_name(kv_type)
            expected = gguf_type_name(type)
            raise self.error(f"key {key} has wrong type: got {got}, expected {expected}")
        if type == GGUF_TYPE_STRING:
            return gguf_get_val_str(self.meta, key_id)
        data = gguf_get_val_data(self.meta, key_id)
        value = data[0]
        if type == GGUF_TYPE_BOOL:
            return value != 0
        return value

    def get_override(self, key: str, type: int) -> Value | None:
        """What the user wants the key to be, or None. An override of another type is reported and left aside."""
        if key not in self.kv_overrides:
            return None
        value = self.kv_overrides[key]
        if not isinstance(value, OVERRIDE_TYPES.get(type, int)):
            GGML_LOG_WARN(f"bad metadata override type for key '{key}', expected {gguf_type_name(type)}\n")
            return None
        GGML_LOG_INFO(f"using metadata override '{key}' = {value}\n")
        return value

    def find_array(self, kid: str, required: bool) -> int:
        """Number of the pair that holds an array; -1 when it is absent and not required."""
        key = self.llm_kv(kid)
        key_id = gguf_find_key(self.meta, key)
        if key_id < 0:
            if required:
                raise self.error(f"key not found in model: {key}")
            return -1
        kv_type = gguf_get_kv_type(self.meta, key_id)
        if kv_type != GGUF_TYPE_ARRAY:
            raise self.error(f"key {key} has wrong type: got {gguf_type_name(kv_type)}, expected arr")
        return key_id

    def get_key_or_arr(self, kid: str, n: int, default: list[int] | None = None) -> list[int]:
        """One number per layer: an array of `n`, or a single number that holds for all. When absent: `default`."""
        key = self.llm_kv(kid)
        key_id = gguf_find_key(self.meta, key)
        if key_id < 0:
            if default is None:
                raise self.error(f"key not found in model: {key}")
            return default

        if gguf_get_kv_type(self.meta, key_id) != GGUF_TYPE_ARRAY:
            value = self.get_key(kid, GGUF_TYPE_UINT32)
            return [value] * n

        n_values = gguf_get_arr_n(self.meta, key_id)
        if n_values != n:
            raise self.error(f"key {key} has wrong array length; expected {n}, got {n_values}")
        type = gguf_get_arr_type(self.meta, key_id)
        values = self.meta.kv[key_id].data
        if type in (GGUF_TYPE_STRING, GGUF_TYPE_FLOAT32, GGUF_TYPE_FLOAT64):
            raise self.error(f"key {key} is an array of {gguf_type_name(type)}, expected integers")
        return values.tolist()

    def print_keys(self) -> None:
        """Log every pair, long values cut."""
        GGML_LOG_INFO("llama_model_loader: Dumping metadata keys/values.\n")
        for i in range(len(self.meta.kv)):
            name = gguf_get_key(self.meta, i)
            type = gguf_get_kv_type(self.meta, i)
            type_name = gguf_type_name(type)
            if type == GGUF_TYPE_ARRAY:
                element_name = gguf_type_name(gguf_get_arr_type(self.meta, i))
                n = gguf_get_arr_n(self.meta, i)
                type_name = f"{type_name}[{element_name},{n}]"
            value = gguf_kv_to_str(self.meta, i)
            if len(value) > MAX_VALUE_LEN:
                value = value[: MAX_VALUE_LEN - 3] + "..."
            value = value.replace("\n", "\\n")
            GGML_LOG_INFO(f"llama_model_loader: - kv {i:3d}: {name:>42s} {type_name:<16s} = {value}\n")


def gguf_kv_to_str(ctx_gguf: gguf_context, i: int) -> str:
    """The value of pair `i` as text. Of an array, as much as fits on a line."""
    type = gguf_get_kv_type(ctx_gguf, i)
    if type == GGUF_TYPE_STRING:
        return gguf_get_val_str(ctx_gguf, i)
    if type != GGUF_TYPE_ARRAY:
        data = gguf_get_val_data(ctx_gguf, i)
        return number_to_str(data[0], type)

    # elements until the line is full
    arr_type = gguf_get_arr_type(ctx_gguf, i)
    arr_n = gguf_get_arr_n(ctx_gguf, i)
    text = "["
    j = 0
    while j < arr_n and len(text) <= MAX_VALUE_LEN:
        if j > 0:
            text += ", "
        if arr_type == GGUF_TYPE_STRING:
            val = gguf_get_arr_str(ctx_gguf, i, j)
            val = val.replace("\\", "\\\\")
            val = val.replace('"', '\\"')
            text += f'"{val}"'
        else:
            text += number_to_str(ctx_gguf.kv[i].data[j], arr_type)
        j += 1
    return text + "]"


def number_to_str(value: int | float, type: int) -> str:
    """A number as C prints it."""
    if type == GGUF_TYPE_BOOL:
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:f}"
    return str(value)
