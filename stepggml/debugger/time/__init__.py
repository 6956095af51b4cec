"""Time at the grain of nodes.

Read cursor.py first: it computes nodes and undoes them. history.py keeps what going back needs, structs.py the tensors
of all graphs so far, inputs.py and writes.py what the program itself wrote between graphs. travel.py has the moves that
commands ask for.
"""
