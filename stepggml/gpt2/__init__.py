"""The gpt-2 example of ggml: load a .bin model, build its graph, evaluate it, sample from it.

Mirrors: ggml/examples/gpt-2/main-backend.cpp and the parts of ggml/examples/common.cpp it uses.

Read in this order: vocab, model, model_file, model_load, graph, eval, sample, main.
"""
