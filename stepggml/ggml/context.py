"""ggml_context: a memory pool, and the objects (tensors, graphs, work buffers) that lie in it one behind the other.

Mirrors: struct ggml_object, struct ggml_context, ggml_init and ggml_new_object of ggml/src/ggml.c.

The pool is a bump allocator. Each object is a 32-byte header and its payload; headers form a linked list through the
pool itself, and nothing is ever freed singly: a context is emptied or freed as a whole. All of it is real memory;
`mem_buffer` is where it starts.

Leaves out: the scratch buffers of older ggml.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from .impl import (
    GGML_ASSERT,
    GGML_LOG_WARN,
    GGML_MEM_ALIGN,
    GGML_PAD,
    NULL,
    ggml_aligned_free,
    ggml_aligned_malloc,
    ggml_critical_section_end,
    ggml_critical_section_start,
    ggml_time_init,
)


class ggml_object_type(IntEnum):
    """What an object's payload is."""

    GGML_OBJECT_TYPE_TENSOR = 0
    GGML_OBJECT_TYPE_GRAPH = 1
    GGML_OBJECT_TYPE_WORK_BUFFER = 2


GGML_OBJECT_TYPE_TENSOR = ggml_object_type.GGML_OBJECT_TYPE_TENSOR
GGML_OBJECT_TYPE_GRAPH = ggml_object_type.GGML_OBJECT_TYPE_GRAPH
GGML_OBJECT_TYPE_WORK_BUFFER = ggml_object_type.GGML_OBJECT_TYPE_WORK_BUFFER


class ggml_object(ctypes.Structure):
    """32-byte header in front of each payload.

    `offs` and `size` are bytes; `next` is the address of the next header.
    """

    _fields_ = [
        ("offs", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
        ("next", ctypes.c_uint64),
        ("type", ctypes.c_int32),
        ("padding", ctypes.c_char * 4),
    ]


class ggml_context(ctypes.Structure):
    """40 bytes. n_objects counts tensors only; objects_begin and objects_end are addresses of headers in the pool."""

    _fields_ = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_uint64),
        ("mem_buffer_owned", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("n_objects", ctypes.c_int32),
        ("objects_begin", ctypes.c_uint64),
        ("objects_end", ctypes.c_uint64),
    ]


class ggml_init_params(ctypes.Structure):
    """24 bytes:

    size of the pool, memory to use for it (NULL: allocate), and whether tensors get no data in the pool.
    """

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_uint64), ("no_alloc", ctypes.c_bool)]


GGML_OBJECT_SIZE = ctypes.sizeof(ggml_object)

_is_first_call = True


def ggml_init(params: ggml_init_params) -> ggml_context:
    """Make a context. The first call of the process also starts the clock.

    C: ggml_init; early 2025 fills a table half -> float there, too. Raises GGMLAbort when the memory is missing or not
    aligned to 16.
    """
    global _is_first_call

    # one thread at a time does the first-call work
    ggml_critical_section_start()
    if _is_first_call:
        # initialize time system
        ggml_time_init()
        _is_first_call = False
    ggml_critical_section_end()

    # size 0 is fine: the smallest pool there is
    mem_size = params.mem_size
    if mem_size == 0:
        mem_size = GGML_MEM_ALIGN
    # a buffer of the caller's is used to its last byte; our own is rounded up
    if params.mem_buffer == NULL:
        mem_size = GGML_PAD(mem_size, GGML_MEM_ALIGN)

    ctx = ggml_context()
    ctx.mem_size = mem_size
    ctx.mem_buffer = params.mem_buffer
    if params.mem_buffer == NULL:
        ctx.mem_buffer = ggml_aligned_malloc(mem_size)
    ctx.mem_buffer_owned = params.mem_buffer == NULL
    ctx.no_alloc = params.no_alloc
    ctx.n_objects = 0
    ctx.objects_begin = NULL
    ctx.objects_end = NULL

    GGML_ASSERT(ctx.mem_buffer != NULL, "no memory for the context's pool", got=mem_size)
    GGML_ASSERT(ctx.mem_buffer % GGML_MEM_ALIGN == 0, "the pool starts on a multiple of 16", got=hex(ctx.mem_buffer))
    return ctx


def ggml_reset(ctx: ggml_context) -> None:
    """Empty the object list and keep the memory."""
    ctx.n_objects = 0
    ctx.objects_begin = NULL
    ctx.objects_end = NULL


def ggml_free(ctx: ggml_context | None) -> None:
    """Give the pool back if the context owns it. Every tensor in it is gone from then on."""
    if ctx is None:
        return
    if ctx.mem_buffer_owned:
        ggml_aligned_free(ctx.mem_buffer, ctx.mem_size)
    ggml_reset(ctx)
    ctx.mem_buffer = NULL
    ctx.mem_buffer_owned = False


def ggml_used_mem(ctx: ggml_context) -> int:
    """Bytes of the pool in use: the end of the last object."""
    if ctx.objects_end == NULL:
        return 0
    last = ggml_object.from_address(ctx.objects_end)
    return last.offs + last.size


def ggml_get_no_alloc(ctx: ggml_context) -> bool:
    return ctx.no_alloc


def ggml_set_no_alloc(ctx: ggml_context, no_alloc: bool) -> None:
    ctx.no_alloc = no_alloc


def ggml_get_mem_buffer(ctx: ggml_context) -> int:
    """Address of the pool's first byte."""
    return ctx.mem_buffer


def ggml_get_mem_size(ctx: ggml_context) -> int:
    """Bytes of the pool."""
    return ctx.mem_size


def ggml_new_object(ctx: ggml_context, type: int, size: int) -> ggml_object | None:
    """Append an object of `size` payload bytes. Returns its header, or None (with a message) when the pool is full.

    C: ggml_new_object.
    """
    mem_buffer = ctx.mem_buffer
    GGML_ASSERT(mem_buffer != NULL, "the context has been freed")

    # a bump allocator: the end of the last object is where the next begins
    cur_end = 0
    objects_end = ctx.objects_end
    if objects_end != NULL:
        obj_prev = ggml_object.from_address(objects_end)
        cur_end = obj_prev.offs + obj_prev.size

    # align to GGML_MEM_ALIGN
    size_needed = GGML_PAD(size, GGML_MEM_ALIGN)

    # room for the header and the payload?
    total = cur_end + size_needed + GGML_OBJECT_SIZE
    if total > ctx.mem_size:
        GGML_LOG_WARN(
            "ggml_new_object: not enough space in the context's memory pool "
            f"(needed {total}, available {ctx.mem_size})\n"
        )
        return None

    # the header lies at the old end, the payload behind it
    address = mem_buffer + cur_end
    obj_new = ggml_object.from_address(address)
    obj_new.offs = cur_end + GGML_OBJECT_SIZE
    obj_new.size = size_needed
    obj_new.next = NULL
    obj_new.type = type

    # link it in
    if objects_end == NULL:
        # the list starts here
        ctx.objects_begin = address
    else:
        obj_prev.next = address
    ctx.objects_end = address
    return obj_new


def ggml_print_object(obj: ggml_object) -> None:
    """One line about a header, to stdout."""
    print(f" - ggml_object: type = {obj.type}, offset = {obj.offs}, size = {obj.size}, next = {obj.next:#x}")


def ggml_print_objects(ctx: ggml_context) -> None:
    """Walk the linked list and print each header."""
    print(f"ggml_print_objects: objects in context {ctypes.addressof(ctx):#x}:")
    address = ctx.objects_begin
    while address != NULL:
        obj = ggml_object.from_address(address)
        ggml_print_object(obj)
        address = obj.next
    print("ggml_print_objects: --- end ---")
