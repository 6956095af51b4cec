"""Debugger sessions on a tiny GGUF model part of which is computed by a device whose memory cannot be touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from debugger_console import Conversation
from debugger_sessions import DATA, MIB, new_session
from fake_device import FakeDevice

from stepggml.debugger.session import Session
from stepggml.ggml.backend_reg import ggml_backend_register, ggml_backend_unload
from stepggml.llama import main

LLAMA = DATA / "gguf" / "llama-Q4_0.gguf"
GPT2 = DATA / "gguf" / "gpt2-Q4_K_M.gguf"
TOKENS = [3, 4, 5, 6]


@contextmanager
def device(refuses: tuple[str, ...] = ("SOFT_MAX",), n_layers: int | None = None) -> Iterator[FakeDevice]:
    """A device "TEST" in the registry. refuses: ops that are left to the CPU; n_layers: how many of the last layers
    (the output is one more) go there, all without it.
    """
    fake = FakeDevice(refuses=refuses)
    all_layers = main.ALL_LAYERS
    ggml_backend_register(fake.reg)
    try:
        if n_layers is not None:
            main.ALL_LAYERS = n_layers
        yield fake
    finally:
        main.ALL_LAYERS = all_layers
        ggml_backend_unload(fake.reg)


@contextmanager
def device_session(
    path: object = LLAMA,
    refuses: tuple[str, ...] = ("SOFT_MAX",),
    n_layers: int | None = None,
    record_limit: int = 512 * MIB,
    **options: object,
) -> Iterator[Session]:
    """A session that has not begun; its scheduler splits graphs between the device and the CPU."""
    with device(refuses, n_layers):
        options = {"backend": "TEST", "tokens": TOKENS} | options
        session = new_session(path, record_limit, **options)
        session.program.entry = "llama_model_load_from_file"
        try:
            yield session
        finally:
            session.close()


@contextmanager
def device_talk(
    path: object = LLAMA, refuses: tuple[str, ...] = ("SOFT_MAX",), n_layers: int | None = None, **options: object
) -> Iterator[Conversation]:
    """The same with a console."""
    with device(refuses, n_layers):
        options = {"model": str(path), "backend": "TEST", "tokens": TOKENS} | options
        talk = Conversation(**options)
        try:
            yield talk
        finally:
            talk.close()
