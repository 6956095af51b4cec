"""The files that a run has mapped into memory: which parts still are, which buffers lie over them, which tensors where.

A llama_mmap is found as any object is: in the locals of the program's frames, and in what these hold. It knows an
address and a size; whose file that is, the operating system says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ...ggml import ggml_backend_buffer_name, ggml_nbytes, ggml_type_name
from .conventions import MAPPING_HOLDERS
from .world import World


@dataclass(frozen=True)
class MappedBuffer:
    """A buffer over a part of the file: bytes first .. last-1 of it. type: such as "CPU_Mapped"."""

    name: str
    type: str
    base: int
    first: int
    last: int


@dataclass(frozen=True)
class MappedTensor:
    """A tensor whose data are the file's own bytes. offset: from the file's start, in bytes."""

    name: str
    type: str
    offset: int
    nbytes: int
    data: int


@dataclass(frozen=True)
class MappingInfo:
    """A mapped file. fragments: the (first, last) bytes that are still mapped, last excluded."""

    file: str
    address: int
    size: int
    fragments: tuple[tuple[int, int], ...]
    buffers: tuple[MappedBuffer, ...] = ()
    tensors: tuple[MappedTensor, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return os.path.basename(self.file)

    @property
    def mapped(self) -> int:
        """Bytes that are still mapped."""
        return sum(last - first for first, last in self.fragments)


def mappings_of(
    frame: FrameType | None, world: World, model_path: str = "", tensors: bool = True
) -> tuple[MappingInfo, ...]:
    """The mapped files of the run, by address. frame: the innermost; model_path: where the system does not name the
    file; tensors=False leaves those out.
    """
    found = sorted(find_mappings(frame), key=lambda mapping: mapping.addr)
    paths = mapped_paths() if found else []
    files = [path_of(mapping, paths) or model_path or "?" for mapping in found]
    return tuple(mapping_info(world, mapping, file, tensors) for mapping, file in zip(found, files, strict=True))


def find_mappings(frame: FrameType | None) -> list[Any]:
    """Every llama_mmap that the program's frames know, once."""
    found: dict[int, Any] = {}
    while frame is not None:
        for value in frame.f_locals.values():
            for mapping in mappings_in(value):
                if mapping.addr and mapping.mapped_fragments:
                    found[mapping.addr] = mapping
        frame = frame.f_back
    return list(found.values())


def mappings_in(value: Any) -> Iterator[Any]:
    """The mappings that an object of stepggml's is or has."""
    if not type(value).__module__.startswith("stepggml.llama"):
        return
    if is_mapping(value):
        yield value
    for name in MAPPING_HOLDERS:
        holder = getattr(value, name, None) if name else value
        mappings = getattr(holder, "mappings", None)
        if isinstance(mappings, list):
            yield from (mapping for mapping in mappings if is_mapping(mapping))


def is_mapping(value: Any) -> bool:
    """Whether a value is a llama_mmap that has been made; one whose constructor still runs has no fragments."""
    return type(value).__name__ == "llama_mmap" and hasattr(value, "mapped_fragments")


def mapping_info(world: World, mapping: Any, file: str, tensors: bool) -> MappingInfo:
    """A llama_mmap as plain data."""
    start, end = mapping.addr, mapping.addr + mapping.size
    buffers = []
    for known in world.buffers:
        if not known.freed and start <= known.base < end:
            first = known.base - start
            kind = ggml_backend_buffer_name(known.buffer)
            buffers.append(MappedBuffer(known.name, kind, known.base, first, first + known.size))
    found = []
    for pool in world.pools if tensors else ():
        for tensor in pool.tensors() if not pool.freed else ():
            if start <= tensor.data < end and tensor.view_src is None:
                offset = tensor.data - start
                kind = ggml_type_name(tensor.type)
                found.append(MappedTensor(tensor.name, kind, offset, ggml_nbytes(tensor), tensor.data))
    found.sort(key=lambda item: item.offset)
    fragments = tuple((first, last) for first, last in mapping.mapped_fragments)
    return MappingInfo(file, start, mapping.size, fragments, tuple(buffers), tuple(found))


def mapped_paths() -> list[tuple[int, int, str]]:
    """(first address, end, path) of every mapped file of this process; empty where the system does not say."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as listing:
            lines = listing.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            first, _, end = fields[0].partition("-")
            found.append((int(first, 16), int(end, 16), fields[5]))
    return found


def path_of(mapping: Any, paths: list[tuple[int, int, str]]) -> str:
    """The file that is mapped there; pages that were made writable have none, others of the file do."""
    for first, last in mapping.mapped_fragments:
        for start, end, path in paths:
            if start < mapping.addr + last and end > mapping.addr + first:
                return path
    return ""
