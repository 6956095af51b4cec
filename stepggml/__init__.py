"""stepggml: an educational step-through debugger for ggml-style inference."""

__version__ = "0.1.0"
