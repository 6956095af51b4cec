"""The program's memory, and the only place of the debugger that touches it.

Read world.py first: what exists, as the tracer has told it. owners.py has its pools and buffers, memory.py their bytes:
every read and write goes through what owns an address, so device memory, repacked weights, mapped files and freed
memory are answers, not cases. process.py asks the kernel for what nothing owns. tables.py sees a graph as columns,
struct_copies.py lets ggml's own functions loose on copies of one, images.py takes pictures. conventions.py lists the
names of variables by which a program is understood.
"""
