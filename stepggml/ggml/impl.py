"""The ground everything else in this folder stands on: constants, asserts, logging, padding, aligned memory, half
floats.

Mirrors: ggml/src/ggml-impl.h and the first part of ggml/src/ggml.c.

An address is a plain int, as `uintptr_t` is in C, and NULL is 0. Memory handed out by `ggml_aligned_malloc` is real
memory of this process: what lies there can be read with any tool, and stays until `ggml_aligned_free`.

Leaves out: ggml_print_backtrace (Python's own traceback is better) and the Windows and macOS branches.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum

import numpy as np

NULL = 0

GGML_MAX_DIMS = 4
GGML_MAX_SRC = 10
GGML_MAX_NAME = 64
GGML_MAX_OP_PARAMS = 64
GGML_MEM_ALIGN = 16
GGML_DEFAULT_GRAPH_SIZE = 2048
GGML_DEFAULT_N_THREADS = 4
GGML_MAX_N_THREADS = 512
GGML_FILE_MAGIC = 0x67676D6C  # "ggml", on disk 6c 6d 67 67
GGML_FILE_VERSION = 2
GGML_QNT_VERSION = 2
GGML_QNT_VERSION_FACTOR = 1000
GGML_KQ_MASK_PAD = 64  # today: gone, masks are no longer padded

# What every aligned malloc of ggml's aligns to: one cache line.
MALLOC_ALIGNMENT = 64


class GGMLAbort(RuntimeError):
    """A failed GGML_ASSERT or a GGML_ABORT.

    Where C prints and aborts the process, stepggml raises this, so a debugger can stop there.
    """


class GGMLFileError(Exception):
    """A file that cannot be used: `path: what`, and one hint where there is one.

    Attributes: path, what, hint (all str; hint may be empty).
    """

    def __init__(self, path: str | os.PathLike, what: str, hint: str = "") -> None:
        self.path = os.fspath(path)
        self.what = what
        self.hint = hint
        message = f"{self.path}: {what}"
        if hint:
            message = f"{message} ({hint})"
        super().__init__(message)

    @classmethod
    def failed_to_open(cls, path: str | os.PathLike, error: OSError | ValueError) -> GGMLFileError:
        """The error of an open() that raised: the system's words as the hint, or our own where Python has none that
        stay the same from version to version.
        """
        if isinstance(error, OSError):
            reason = (error.strerror or str(error)).lower()
        elif "\0" in os.fspath(path):
            reason = "a path cannot hold a null byte"
        else:
            reason = str(error)
        return cls(path, "failed to open", reason)


# Passed as `got` or `expected` when there is no such value to show; None can be a value.
_ABSENT = object()


def GGML_ASSERT(
    cond: object, message: str = "", got: object = _ABSENT, expected: object = _ABSENT, **values: object
) -> None:
    """Raise GGMLAbort with the caller's file and line unless `cond` holds. C: GGML_ASSERT(x), which aborts.

    values: what the braces in the texts stand for. They are filled in only when the assert fails: most never do.
    """
    if cond:
        return
    message = filled_in(message, values)
    got = filled_in(got, values)
    expected = filled_in(expected, values)
    caller = sys._getframe(1)
    where = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}"
    text = f"{where}: GGML_ASSERT in {caller.f_code.co_name} failed"
    if message:
        text = f"{text}: {message}"
    if got is not _ABSENT:
        text = f"{text}: got {got}"
    if expected is not _ABSENT:
        text = f"{text}, expected {expected}"
    raise GGMLAbort(text)


def filled_in(text: object, values: dict[str, object]) -> object:
    """`text` with the values in its braces; a C array is shown as a list."""
    if isinstance(text, ctypes.Array):
        return list(text)
    if not values or not isinstance(text, str):
        return text
    shown = {}
    for name, value in values.items():
        shown[name] = list(value) if isinstance(value, ctypes.Array) else value
    return text.format(**shown)


def GGML_ABORT(message: str) -> None:
    """Raise GGMLAbort with the caller's file and line. C: GGML_ABORT(fmt, ...)."""
    caller = sys._getframe(1)
    where = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}"
    raise GGMLAbort(f"{where}: {message}")


def GGML_PAD(x: int, n: int) -> int:
    """`x` rounded up to a multiple of `n`, a power of two."""
    return (x + n - 1) & ~(n - 1)


# ----------------------------------------------------------------------------------------------------------------------
# status


class ggml_status(IntEnum):
    """What a graph computation returns."""

    GGML_STATUS_ALLOC_FAILED = -2
    GGML_STATUS_FAILED = -1
    GGML_STATUS_SUCCESS = 0
    GGML_STATUS_ABORTED = 1


GGML_STATUS_ALLOC_FAILED = ggml_status.GGML_STATUS_ALLOC_FAILED
GGML_STATUS_FAILED = ggml_status.GGML_STATUS_FAILED
GGML_STATUS_SUCCESS = ggml_status.GGML_STATUS_SUCCESS
GGML_STATUS_ABORTED = ggml_status.GGML_STATUS_ABORTED


def ggml_status_to_string(status: int) -> str:
    """The words ggml prints for a status."""
    if status == GGML_STATUS_ALLOC_FAILED:
        return "GGML status: error (failed to allocate memory)"
    if status == GGML_STATUS_FAILED:
        return "GGML status: error (operation failed)"
    if status == GGML_STATUS_SUCCESS:
        return "GGML status: success"
    if status == GGML_STATUS_ABORTED:
        return "GGML status: warning (operation aborted)"
    return "GGML status: unknown"


# ----------------------------------------------------------------------------------------------------------------------
# logging


class ggml_log_level(IntEnum):
    """Severity given to the log callback."""

    GGML_LOG_LEVEL_NONE = 0
    GGML_LOG_LEVEL_DEBUG = 1
    GGML_LOG_LEVEL_INFO = 2
    GGML_LOG_LEVEL_WARN = 3
    GGML_LOG_LEVEL_ERROR = 4


def ggml_log_callback_default(level: int, text: str, user_data: object) -> None:
    """Write to stderr. C prints every level; here DEBUG is silent unless a callback of the user's asks for it."""
    if level > ggml_log_level.GGML_LOG_LEVEL_DEBUG:
        sys.stderr.write(text)
        sys.stderr.flush()


_log_callback: Callable[[int, str, object], None] = ggml_log_callback_default
_log_user_data: object = None


def ggml_log_set(log_callback: Callable[[int, str, object], None] | None, user_data: object = None) -> None:
    """Send ggml's messages to `log_callback(level, text, user_data)`; None restores the default."""
    global _log_callback, _log_user_data
    _log_callback = log_callback or ggml_log_callback_default
    _log_user_data = user_data


def ggml_log_internal(level: int, text: str) -> None:
    """Hand one message to the callback."""
    _log_callback(level, text, _log_user_data)


def GGML_LOG_DEBUG(text: str) -> None:
    ggml_log_internal(ggml_log_level.GGML_LOG_LEVEL_DEBUG, text)


def GGML_LOG_INFO(text: str) -> None:
    ggml_log_internal(ggml_log_level.GGML_LOG_LEVEL_INFO, text)


def GGML_LOG_WARN(text: str) -> None:
    ggml_log_internal(ggml_log_level.GGML_LOG_LEVEL_WARN, text)


def GGML_LOG_ERROR(text: str) -> None:
    ggml_log_internal(ggml_log_level.GGML_LOG_LEVEL_ERROR, text)


# ----------------------------------------------------------------------------------------------------------------------
# time


def ggml_time_init() -> None:
    """Nothing to prepare: the monotonic clock runs anyway. C needs this call on Windows."""


def ggml_time_ms() -> int:
    """Milliseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000


def ggml_time_us() -> int:
    """Microseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000


# ----------------------------------------------------------------------------------------------------------------------
# the global critical section

_critical_section = threading.Lock()


def ggml_critical_section_start() -> None:
    """Enter the one lock that guards ggml's first-call work."""
    _critical_section.acquire()


def ggml_critical_section_end() -> None:
    """Leave it."""
    _critical_section.release()


# ----------------------------------------------------------------------------------------------------------------------
# memory

_libc = ctypes.CDLL(None, use_errno=True)
_libc.posix_memalign.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t)
_libc.free.argtypes = (ctypes.c_void_p,)


def ggml_aligned_malloc(size: int) -> int:
    """Address of `size` bytes aligned to 64, or NULL with a message when there is no memory or size is 0.

    C: ggml_aligned_malloc. The bytes are not cleared.
    """
    if size == 0:
        GGML_LOG_WARN("Behavior may be unexpected when allocating 0 bytes for ggml_aligned_malloc!\n")
        return NULL
    aligned_memory = ctypes.c_void_p()
    result = _libc.posix_memalign(ctypes.byref(aligned_memory), MALLOC_ALIGNMENT, size)
    if result != 0:
        GGML_LOG_ERROR(
            f"ggml_aligned_malloc: insufficient memory (attempted to allocate {size / 1024 / 1024:6.2f} MB)\n"
        )
        return NULL
    return aligned_memory.value or NULL


def ggml_aligned_free(ptr: int, size: int) -> None:
    """Give back what ggml_aligned_malloc returned. `size` is unused here, as in C on Linux."""
    if ptr != NULL:
        _libc.free(ptr)


# ----------------------------------------------------------------------------------------------------------------------
# half floats


def ggml_fp16_to_fp32(x: int) -> float:
    """The float that the 16 bits `x` stand for."""
    return float(np.uint16(x).view(np.float16))


def ggml_fp32_to_fp16(x: float) -> int:
    """The bits of the half nearest to `x`, ties to even, denormals kept."""
    with np.errstate(over="ignore"):
        half = np.float32(x).astype(np.float16)
    return int(half.view(np.uint16))


def ggml_fp32_to_bf16(x: float) -> int:
    """The upper half of a float's bits, rounded to nearest even; a NaN is made quiet."""
    bits = int(np.float32(x).view(np.uint32))
    if (bits & 0x7FFFFFFF) > 0x7F800000:
        return (bits >> 16) | 64
    return (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16


def ggml_bf16_to_fp32(x: int) -> float:
    """A float whose upper 16 bits are `x` and whose lower are 0."""
    return float(np.uint32(x << 16).view(np.float32))
