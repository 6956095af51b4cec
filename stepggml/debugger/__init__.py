"""The debugger: floor 4. It watches the floors below, which know nothing of it.

Its folders are floors, too: each imports only from those above it in this list, which is the order to read them in.

  target/     memory through the buffer that owns it, ggml's structs in it, the world of pools, buffers and graphs
  run/        the program in a thread of its own: tracer, watchers, stops, breakpoints, the wrapped backend
  time/       node by node forwards and backwards: what was overwritten, and the way back to it
  ask/        what a tensor is, what it is called, what its bytes are worth; why/ gives reasons
  compare/    two runs, node by node
  session.py  the one door: all that a front end may ask and do
  show/       documents: panels make them, terminal, HTML and SVG draw them
  shell/      a front end: the prompt, its commands, scripts, the full screen
  library/    a front end: `stepggml.Session` for programs and notebooks

errors.py and hints.py stand below all of them.
"""
