"""What there is, is what lies in a folder: ops, architectures and programs are found by looking. There is no list.

C has such lists in its build files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def module_names(path: Iterable[str]) -> list[str]:
    """Names of the modules in a package's folder (its __path__), helpers with a leading underscore among them, sorted.

    pkgutil.iter_modules says the same, and first imports `inspect` and all that it takes to read source code.
    """
    names = []
    for folder in path:
        for file in os.listdir(folder):
            name, extension = os.path.splitext(file)
            if extension == ".py" and name != "__init__":
                names.append(name)
    names.sort()
    return names
