"""`python -m stepggml` is the command `stepggml`."""

from .cli import run_and_leave

if __name__ == "__main__":
    run_and_leave()
