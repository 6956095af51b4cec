"""One file per family of ops, found by being here: EXPLAIN maps the names of its ops to functions of an ElementCase."""
