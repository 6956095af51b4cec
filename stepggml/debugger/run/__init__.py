"""A program that runs and is stopped.

Read engine.py first: two threads, of which one runs at a time. tracer.py sees lines and calls, wrap.py comes between
the program and its backends. What is seen goes to watchers (watcher.py): world_watch.py keeps the world up to date,
provenance.py and decisions.py write down how tensors and graphs were made, memorystops.py and nan_watch.py look out,
reference.py steps into a node. breakpoints.py and nodestops.py say where to stop, stops.py what a stop tells, and
evaluation.py is the record of one graph handed to a backend.
"""
