"""The registry: which backends this build has, and the devices they bring. One per process, made when it is first asked
for.

Mirrors: ggml/src/ggml-backend-reg.cpp.

A backend is one file of stepggml/backends/, named as its function ggml_backend_<name>_reg says. They are found by
looking into that folder, as C finds shared libraries by looking for libggml-<name>.so; a file that fails to load (a
library is missing, say) is passed over with a message. The CPU registers last: it is what remains when nobody else
wants an op.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

from .backend import (
    ggml_backend_dev_init,
    ggml_backend_dev_name,
    ggml_backend_dev_type_of,
    ggml_backend_reg_dev_count,
    ggml_backend_reg_dev_get,
    ggml_backend_reg_name,
)
from .backend_impl import (
    GGML_BACKEND_API_VERSION,
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_BACKEND_DEVICE_TYPE_GPU,
    ggml_backend,
    ggml_backend_device,
    ggml_backend_reg,
)
from .impl import GGML_ASSERT, GGML_LOG_DEBUG, GGML_LOG_ERROR

BACKENDS_PACKAGE = "stepggml.backends"


@dataclass(eq=False)
class ggml_backend_registry:
    """Registered kinds of backend and all their devices, in order of registration."""

    backends: list[ggml_backend_reg] = field(default_factory=list)
    devices: list[ggml_backend_device] = field(default_factory=list)


_registry: ggml_backend_registry | None = None


def backend_files() -> list[str]:
    """Names of the files in the backends folder, the CPU's last. A leading underscore marks a helper."""
    package = importlib.import_module(BACKENDS_PACKAGE)
    names = []
    for module_info in pkgutil.iter_modules(package.__path__):
        if not module_info.name.startswith("_") and module_info.name != "cpu":
            names.append(module_info.name)
    names.append("cpu")
    return names


def get_reg() -> ggml_backend_registry:
    """The registry; the first call fills it."""
    global _registry
    if _registry is None:
        _registry = ggml_backend_registry()
        for name in backend_files():
            ggml_backend_load(name)
    return _registry


def ggml_backend_load(name: str) -> ggml_backend_reg | None:
    """Import backends/<name>.py and register what it offers. None, with a message, when that fails."""
    try:
        module = importlib.import_module(f"{BACKENDS_PACKAGE}.{name}")
    except ImportError as error:
        GGML_LOG_DEBUG(f"ggml_backend_load: failed to load {name}: {error}\n")
        return None
    make_reg: Callable[[], ggml_backend_reg | None] | None = getattr(module, f"ggml_backend_{name}_reg", None)
    if make_reg is None:
        GGML_LOG_ERROR(f"ggml_backend_load: failed to find ggml_backend_{name}_reg in {name}\n")
        return None
    reg = make_reg()
    if reg is None or reg.api_version != GGML_BACKEND_API_VERSION:
        GGML_LOG_DEBUG(f"ggml_backend_load: {name} is not supported on this system\n")
        return None
    ggml_backend_register(reg)
    return reg


def ggml_backend_register(reg: ggml_backend_reg) -> None:
    """Append a kind of backend and each of its devices. One that is registered already is left alone."""
    registry = get_reg()
    if reg in registry.backends:
        return
    registry.backends.append(reg)
    for i in range(ggml_backend_reg_dev_count(reg)):
        device = ggml_backend_reg_dev_get(reg, i)
        ggml_backend_device_register(device)


def ggml_backend_device_register(device: ggml_backend_device) -> None:
    """Append one device."""
    get_reg().devices.append(device)


def ggml_backend_unload(reg: ggml_backend_reg) -> None:
    """Remove a kind of backend and its devices."""
    registry = get_reg()
    GGML_ASSERT(reg in registry.backends, "no such backend is registered", got=ggml_backend_reg_name(reg))
    for device in list(registry.devices):
        if device.reg is reg:
            registry.devices.remove(device)
    registry.backends.remove(reg)


# ----------------------------------------------------------------------------------------------------------------------
# enumeration


def ggml_backend_reg_count() -> int:
    return len(get_reg().backends)


def ggml_backend_reg_get(index: int) -> ggml_backend_reg:
    """Kind of backend number `index`."""
    GGML_ASSERT(0 <= index < ggml_backend_reg_count(), "no such backend", got=index)
    return get_reg().backends[index]


def ggml_backend_reg_by_name(name: str) -> ggml_backend_reg | None:
    """Upper and lower case are the same."""
    for reg in get_reg().backends:
        if ggml_backend_reg_name(reg).lower() == name.lower():
            return reg
    return None


def ggml_backend_dev_count() -> int:
    return len(get_reg().devices)


def ggml_backend_dev_get(index: int) -> ggml_backend_device:
    """Device number `index`."""
    GGML_ASSERT(0 <= index < ggml_backend_dev_count(), "no such device", got=index)
    return get_reg().devices[index]


def ggml_backend_dev_by_name(name: str) -> ggml_backend_device | None:
    """Upper and lower case are the same."""
    for device in get_reg().devices:
        if ggml_backend_dev_name(device).lower() == name.lower():
            return device
    return None


def ggml_backend_dev_by_type(type: int) -> ggml_backend_device | None:
    """The first device of a kind."""
    for device in get_reg().devices:
        if ggml_backend_dev_type_of(device) == type:
            return device
    return None


# ----------------------------------------------------------------------------------------------------------------------
# convenience


def ggml_backend_init_by_name(name: str, params: str | None = None) -> ggml_backend | None:
    """A backend on the device of that name, or None."""
    device = ggml_backend_dev_by_name(name)
    if device is None:
        return None
    return ggml_backend_dev_init(device, params)


def ggml_backend_init_by_type(type: int, params: str | None = None) -> ggml_backend | None:
    """A backend on the first device of that kind, or None."""
    device = ggml_backend_dev_by_type(type)
    if device is None:
        return None
    return ggml_backend_dev_init(device, params)


def ggml_backend_init_best() -> ggml_backend | None:
    """A backend on the first GPU, else on the CPU."""
    device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU)
    if device is None:
        device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)
    if device is None:
        return None
    return ggml_backend_dev_init(device, None)
