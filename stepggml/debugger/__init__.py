"""The debugger: floor 4. It watches the floors below, which know nothing of it."""
