"""Reasons: why an element has its value, why a tensor lies where it lies, why a node is where it is in the order."""
