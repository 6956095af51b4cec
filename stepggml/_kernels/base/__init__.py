"""The kernels compiled for any machine of the architecture (see ../variants.py)."""
