"""Reasons: why an element has its value, why a tensor lies where it lies, why a node is where it is in the order, why
and why it runs where it runs. answers.py is the face.

explain.py looks an op's explanation up in ops/: a file there ends with EXPLAIN, a function for each op it knows. It is
given an ElementCase (case.py) and returns an Explanation (record.py). alloc.py and order.py let ggml's own functions
decide again, on copies (replay_alloc.py, observe.py).
"""
