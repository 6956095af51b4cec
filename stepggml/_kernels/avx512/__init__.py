"""The kernels compiled for x86 with AVX-512 and VNNI (see ../variants.py)."""
