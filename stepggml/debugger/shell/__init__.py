"""The command line of the debugger.

Read command.py first: a command is a decorated function, its arguments are those of its signature (arguments.py). What
commands see of the shell is in interface.py; what the shell keeps for its user in remembered.py and settings.py.
commands/ is one file per group, found by looking. console.py runs lines, whether they come from a script, a pipe,
repl.py (the prompt) or tui.py (the whole screen); main.py is `stepggml debug`.
"""
