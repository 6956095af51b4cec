"""Two runs side by side. diff_runs.py says what is to be compared and brings it here; lanes.py lays an evaluation out a
second time, methods.py are ways to compute it, diff.py lets them run and finds the node to blame.
"""
