"""Compiled work of the host that computes no node: a loop in Python would be felt there, and numpy would have to be
imported.

* features   which instruction sets the processor has
* layout     sizes and offsets of the C structs, for the test of their ctypes twins
* strings    the vocabulary of a GGUF file: tens of thousands of strings, of which a prompt needs some dozens
* growth     graphs that grow evenly from token to token: images compared, numbers moved
* kv_cells   walks over the cells of a KV cache, and the mask that follows from them
* names      tensors of a graph by their names
* pointers   C arrays read and written in place: operands, nodes, hash sets
* sampling   the largest logits, and their probabilities

Each file is compiled once, for any machine, and can be read alone. The names to use are those of stepggml._kernels.
"""
