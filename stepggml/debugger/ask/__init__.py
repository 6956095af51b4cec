"""Questions about a program that stands still; nothing here moves it.

Read look.py first: a Looker describes tensors, states and values. It asks shown_graph.py (the graph at hand),
tensor_names.py (what a tensor is called), states.py (what its bytes are worth) and past.py (memory as it was).
stopmaker.py and snapshot.py put a stop and a picture of everything together; scope.py, expressions.py and references.py
read what a user types, tensor_view.py is a tensor in such an expression; change.py writes elements. questions.py is the
face that the session shows, and why/ gives reasons.
"""
