"""The kernels compiled for x86 with AVX2, FMA and F16C (see ../variants.py)."""
