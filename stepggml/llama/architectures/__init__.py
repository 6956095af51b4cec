"""The architectures. One file is one: `ARCHITECTURE` at its end says its name, its keys, its tensors and its graph."""
