"""A copy of the package with files added to it, to be run in processes of its own. The copy is made of links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from package_source import PACKAGE

SUPPORT = Path(__file__).resolve().parent
EXAMPLES = SUPPORT / "examples"


class PackageCopy:
    """stepggml in `folder`, and what was added: {path in the package: file of tests/support/examples}."""

    def __init__(self, folder: Path, additions: dict[str, str]) -> None:
        self.folder = folder
        self.additions = additions
        for path, folders, files in os.walk(PACKAGE):
            inside = folder / PACKAGE.name / os.path.relpath(path, PACKAGE)
            inside.mkdir(parents=True, exist_ok=True)
            for name in files:
                (inside / name).symlink_to(Path(path) / name)
            # compiled files are taken over whole: Python compares them with the sources behind the links
            if "__pycache__" in folders:
                folders.remove("__pycache__")
                (inside / "__pycache__").symlink_to(Path(path) / "__pycache__")
        for target, source in additions.items():
            place = folder / PACKAGE.name / target
            assert not place.exists(), f"{target} is there already"
            place.parent.mkdir(exist_ok=True)
            place.write_text((EXAMPLES / source).read_text())

    def python(self, *arguments: str) -> str:
        """Run Python with this copy of the package; what it printed."""
        path = os.pathsep.join((str(self.folder), str(SUPPORT)))
        environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], env=environ, cwd=self.folder, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stepggml(self, *arguments: str) -> str:
        """Run the command line; what it printed."""
        return self.python("-m", "stepggml", *arguments)
