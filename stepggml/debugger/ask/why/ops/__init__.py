"""How the ops compute an element: one file per family. Each ends with EXPLAIN: a function for every op it knows."""
