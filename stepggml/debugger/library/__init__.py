"""The debugger as a library, `stepggml.Session`: session.py, and the tensors it hands out. A front end like the prompt,
of which it knows nothing.
"""
