"""Time. cursor.py computes graphs node by node and undoes nodes; history.py keeps the bytes they overwrote, within a
limit; structs.py and inputs.py keep what graphs looked like and were given; travel.py moves to any place on the way.
"""
