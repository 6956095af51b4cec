"""The program's memory, and what lies in it. Only this folder imports ctypes.

memory.py reads and writes bytes through what owns them (owners.py, process.py, pages.py); world.py knows the pools,
buffers, graphs and the model there are; values.py, elements.py and fields.py turn bytes into numbers and structs.
"""
