"""The program under observation. engine.py runs it in a thread; tracer.py sees its lines and calls; watcher.py is how
everything else hears of them; wrap.py puts a backend of ours around the real one; breakpoints.py, nodestops.py and
memorystops.py say where to stop, stops.py what a stop tells.
"""
