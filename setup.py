"""Builds the compiled kernels: every .pyx below stepggml/_kernels is cythonised once and its C compiled once per
instruction set.

The table of modules, variants and flags is stepggml/_kernels/variants.py; everything else about the package is in
pyproject.toml.
"""

import copy
import filecmp
import os
import platform
import runpy
import shutil

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = "stepggml/_kernels"
PACKAGE = "stepggml._kernels"
TABLE_PATH = f"{FOLDER}/variants.py"
TABLE = runpy.run_path(TABLE_PATH)
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}


def c_sources() -> dict[str, str]:
    """Turn each .pyx into C under build/ and return module name -> path of its C file."""
    modules = [*TABLE["PLAIN_MODULES"], *TABLE["KERNEL_MODULES"]]
    extensions = [Extension(f"{PACKAGE}.{name}", [f"{FOLDER}/{name.replace('.', '/')}.pyx"]) for name in modules]
    done = cythonize(extensions, build_dir="build/cython", compiler_directives=DIRECTIVES, quiet=True)
    return {extension.name.removeprefix(f"{PACKAGE}."): extension.sources[0] for extension in done}


def extension_list() -> list[Extension]:
    """One extension per plain module, and one per kernel module and variant that this architecture can have."""
    sources = c_sources()
    common = [*TABLE["COMMON_FLAGS"], "-Wno-psabi", "-Wno-unused-function"]
    extensions = []
    for name in TABLE["PLAIN_MODULES"]:
        extensions.append(Extension(f"{PACKAGE}.{name}", [sources[name]], extra_compile_args=common))
    for variant, (features, variant_flags) in TABLE["VARIANTS"].items():
        if features and not IS_X86:
            continue
        for name, module_flags in TABLE["KERNEL_MODULES"].items():
            flags = [*common, *module_flags, *variant_flags]
            full_name = f"{PACKAGE}.{variant}.{name}"
            extensions.append(Extension(full_name, [sources[name]], extra_compile_args=flags, depends=[TABLE_PATH]))
    return extensions


class BuildKernels(build_ext):
    """build_ext in parallel; each variant has its own folder of object files; a .so in the tree is replaced in one
    step.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()
        if self.inplace:  # also an editable install, which would compile everything anew in a temporary folder
            self.build_lib = "build/inplace"
            self.build_temp = "build/objects"

    def build_extension(self, ext: Extension) -> None:
        worker = copy.copy(self)
        worker.build_temp = os.path.join(self.build_temp, ext.name.split(".")[-2])
        build_ext.build_extension(worker, ext)

    def copy_extensions_to_source(self) -> None:
        """Copy the built files into the tree: written beside, then renamed, so that a running program never sees half
        of one.
        """
        build_py = self.get_finalized_command("build_py")
        for ext in self.extensions:
            package_dir = build_py.get_package_dir(ext.name.rsplit(".", 1)[0])
            built = os.path.join(self.build_lib, self.get_ext_filename(self.get_ext_fullname(ext.name)))
            target = os.path.join(package_dir, os.path.basename(built))
            if os.path.exists(target) and filecmp.cmp(built, target, shallow=False):
                continue
            partial = f"{target}.{os.getpid()}.part"
            shutil.copyfile(built, partial)
            shutil.copymode(built, partial)
            os.replace(partial, target)


setup(ext_modules=extension_list(), cmdclass={"build_ext": BuildKernels})
