"""Floor 3: the path a model takes through llama.cpp of early 2025, from the file to the next token.

Read in this order: file, mmap, mlock (the bytes of a file); loader (what is where in it); model and vocab (what it
becomes in memory); kv_cache, llm_build, llm_build_decoder and architectures/ (one evaluation as a graph); context and
decode (from tokens to logits); sampling; main, which ties them together.
"""
