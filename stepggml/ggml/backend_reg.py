"""The registry: which backends this build has, and the devices they bring. One per process, made when it is first asked
for.

Mirrors: ggml/src/ggml-backend-reg.cpp.

A backend is one file of stepggml/backends/, named as its function ggml_backend_<name>_reg says. They are found by
looking into that folder, as C finds shared libraries by looking for libggml-<name>.so; a file that fails to load (a
library is missing, say) is passed over with a message. Of several files for one backend the one with the highest
score is taken. The CPU registers last: it is what remains when no other backend wants an op.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from types import ModuleType

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
from .impl import GGML_ASSERT, GGML_LOG_DEBUG, GGML_LOG_ERROR, GGML_LOG_INFO

BACKENDS_PACKAGE = "stepggml.backends"


class ggml_backend_registry:
    """Registered kinds of backend and all their devices, in order of registration."""

    def __init__(self) -> None:
        self.backends: list[ggml_backend_reg] = []
        self.devices: list[ggml_backend_device] = []


_registry: ggml_backend_registry | None = None


def get_reg() -> ggml_backend_registry:
    """The registry; the first call fills it."""
    global _registry
    if _registry is None:
        _registry = ggml_backend_registry()
        ggml_backend_load_all()
    return _registry


# ----------------------------------------------------------------------------------------------------------------------
# loading


def backends_folder() -> str:
    """The folder of the backends that come with stepggml."""
    package = importlib.import_module(BACKENDS_PACKAGE)
    return next(iter(package.__path__))


def python_files(folder: str | os.PathLike) -> list[str]:
    """Names of the Python files in a folder, without ".py", sorted; none when there is no such folder."""
    if not os.path.isdir(folder):
        return []
    stems = []
    for file in os.listdir(folder):
        stem, suffix = os.path.splitext(file)
        if suffix == ".py":
            stems.append(stem)
    return sorted(stems)


def stem_of(path: str | os.PathLike) -> str:
    """The name of a file without its folder and suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def backend_names(folder: str | os.PathLike) -> list[str]:
    """Names of the backends in a folder, the CPU's last. A leading underscore marks a helper, "-" a variant."""
    names = set()
    for stem in python_files(folder):
        name = stem.partition("-")[0]
        if name and not name.startswith("_") and name != "cpu":
            names.add(name)
    ordered = sorted(names)
    ordered.append("cpu")
    return ordered


def ggml_backend_load_all() -> None:
    """Load what comes with stepggml, then the file that GGML_BACKEND_PATH names."""
    ggml_backend_load_all_from_path(None)


def ggml_backend_load_all_from_path(dir_path: str | os.PathLike | None) -> None:
    """Load the best file of each backend in a folder (None: the one that comes with stepggml). C: from a fixed list."""
    folder = backends_folder() if dir_path is None else dir_path
    for name in backend_names(folder):
        ggml_backend_load_best(name, True, folder)

    # a backend from outside
    backend_path = os.environ.get("GGML_BACKEND_PATH")
    if backend_path:
        ggml_backend_load(backend_path)


def ggml_backend_load_best(
    name: str, silent: bool = True, user_search_path: str | os.PathLike | None = None
) -> ggml_backend_reg | None:
    """Of the files <name>.py and <name>-<variant>.py, load the one with the highest score; None when none can be had.

    A file's score is what its ggml_backend_score() says: 0 when this machine cannot run it. A file without that
    function is taken when no other has a score.
    """
    folder = backends_folder() if user_search_path is None else user_search_path
    best_score = 0
    best_path = None
    # of equals the first wins, so the one without a variant comes last
    stems = []
    for stem in python_files(folder):
        if stem.startswith(f"{name}-"):
            stems.append(stem)
    stems.append(name)
    for stem in stems:
        path = os.path.join(folder, f"{stem}.py")
        if not os.path.isfile(path):
            continue
        module = import_backend(path)
        if module is None:
            continue
        score_fn: Callable[[], int] | None = getattr(module, "ggml_backend_score", None)
        if score_fn is None:
            if not silent:
                GGML_LOG_INFO(f"ggml_backend_load_best: failed to find ggml_backend_score in {path}\n")
            continue
        score = score_fn()
        GGML_LOG_DEBUG(f"ggml_backend_load_best: {path} score: {score}\n")
        if score > best_score:
            best_score = score
            best_path = path

    if best_path is None:
        best_path = os.path.join(folder, f"{name}.py")
        if not os.path.isfile(best_path):
            return None
    return ggml_backend_load(best_path)


def import_backend(path: str | os.PathLike) -> ModuleType | None:
    """The module in a file, or None with a message. Files of stepggml's own folder are imported by their names."""
    stem = stem_of(path)
    try:
        if os.path.dirname(path) == backends_folder() and "-" not in stem:
            return importlib.import_module(f"{BACKENDS_PACKAGE}.{stem}")
        spec = importlib.util.spec_from_file_location(stem.replace("-", "_"), path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except (ImportError, OSError, SyntaxError) as error:
        GGML_LOG_DEBUG(f"ggml_backend_load: failed to load {path}: {error}\n")
        return None


def ggml_backend_load(path: str | os.PathLike) -> ggml_backend_reg | None:
    """Import a backend's file and register what it offers. None, with a message, when that fails.

    The file defines ggml_backend_<name>_reg(), and ggml_backend_score() if it may not run everywhere.
    """
    name = stem_of(path).partition("-")[0]
    module = import_backend(path)
    if module is None:
        return None
    score_fn: Callable[[], int] | None = getattr(module, "ggml_backend_score", None)
    if score_fn is not None and score_fn() == 0:
        GGML_LOG_DEBUG(f"ggml_backend_load: {path} is not supported on this system\n")
        return None
    make_reg: Callable[[], ggml_backend_reg | None] | None = getattr(module, f"ggml_backend_{name}_reg", None)
    if make_reg is None:
        GGML_LOG_ERROR(f"ggml_backend_load: failed to find ggml_backend_{name}_reg in {path}\n")
        return None
    reg = make_reg()
    if reg is None or reg.api_version != GGML_BACKEND_API_VERSION:
        GGML_LOG_DEBUG(f"ggml_backend_load: failed to initialize backend from {path}\n")
        return None
    GGML_LOG_DEBUG(f"ggml_backend_load: loaded {ggml_backend_reg_name(reg)} backend from {path}\n")
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
