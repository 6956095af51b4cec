"""Modules that are imported when something of them is asked for.

numpy alone takes as long to import as a small model to load, and a run of that model has its first token without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """Stands in sys.modules for a module; the first question makes way for it and takes over all it has.

    (importlib's LazyLoader is not so patient: the second `import` of a name is a question to it, too.)
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        vars(self).update(vars(module))
        return getattr(module, name)


def import_when_used(name: str) -> None:
    """From now on `import name` costs nothing until the module is used. One that is missing is left to the import."""
    if name not in sys.modules and importlib.util.find_spec(name) is not None:
        sys.modules[name] = StandIn(name)
