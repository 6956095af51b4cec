"""Writes docs/twelve-questions.md: the twelve questions, the commands, and what they show on the built-in model.

python tests/support/make_twelve_questions.py
"""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from twelve_questions import QUESTIONS, Question, Setting, built_in  # noqa: E402

GUIDE = ROOT / "docs" / "twelve-questions.md"
HEAD = """# Twelve questions

What everyone asks who wants to understand ggml by stepping through it. Each is answered by at most two commands, from
the stop named above them; most work from any other stop as well. The output is that of the built-in model, with 2
threads, on an 110 columns wide page; addresses, and the last digits of some numbers, differ from machine to machine.

`python tests/support/make_twelve_questions.py` writes this page anew.
`tests/stories/test_twelve_questions.py` asks the questions and checks the answers with arithmetic of its own.
`stepggml debug` opens the prompt.
"""


def section(question: Question, setting: Setting) -> str:
    """One question with its answer."""
    # one command at a time, so that each stands above its output
    talk, shown = setting.ask(replace(question, commands=()))
    try:
        words = setting.words(talk)
        commands = [command.format(**words) for command in question.commands]
        for command in commands:
            shown += f"(stepggml) {command}\n{talk.good(command)}"
    finally:
        talk.close()
    text = question.text.format(**words)
    title = f"## {question.number}. {text}" if not question.model else f"### {text}"
    says = textwrap.fill(question.says, 120)
    return f"{title}\n\nAsked at {question.asked_at}:\n\n```text\n{shown.rstrip()}\n```\n\n{says}\n"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        setting = built_in(Path(folder))
        parts = [section(question, setting) for question in QUESTIONS]
        os.chdir(ROOT)
    GUIDE.write_text("\n".join([HEAD, *parts]), encoding="utf-8")


if __name__ == "__main__":
    main()
