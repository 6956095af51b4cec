"""The prompt in a terminal: reads a line, gives it to the console, until the user leaves."""

from __future__ import annotations

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output
from prompt_toolkit.shortcuts import CompleteStyle

from .console import PROMPT, Console
from .prompt import PLAIN, STYLE, CommandCompleter, CommandLexer, open_history, toolbar_text


class Repl:
    """Reads lines and gives them to the console, until the user leaves."""

    def __init__(
        self, console: Console, input: Input | None = None, output: Output | None = None, history: History | None = None
    ) -> None:
        self.console = console
        self.input = input
        self.output = output
        console.ask = self.ask
        coloured = console.painter.colours
        self.prompt_session: PromptSession[str] = PromptSession(
            history=history if history is not None else open_history(),
            completer=CommandCompleter(console),
            complete_style=CompleteStyle.MULTI_COLUMN,
            complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory() if coloured else None,
            lexer=CommandLexer() if coloured else None,
            style=STYLE if coloured else PLAIN,
            bottom_toolbar=self.toolbar,
            input=input,
            output=output,
        )

    def run(self) -> None:
        """The loop. Ctrl-C clears the line, Ctrl-D leaves, like gdb."""
        while not self.console.done:
            try:
                line = self.prompt_session.prompt(self.prompt_text())
            except KeyboardInterrupt:
                self.console.collector = None
                continue
            except EOFError:
                if self.console.collector is not None:
                    self.console.collector = None
                    continue
                self.console.write("quit\n")
                self.console.run_line("quit")
                continue
            self.console.run_line(line)

    def prompt_text(self) -> StyleAndTextTuples:
        """The prompt; inside `define` and `python`, a mark."""
        text = PROMPT if self.console.collector is None else "> ".rjust(len(PROMPT))
        return [("class:prompt", text)]

    def ask(self, question: str) -> bool:
        """Ask; Ctrl-D means yes, Ctrl-C no. Answers enter no history."""
        asking: PromptSession[str] = PromptSession(history=InMemoryHistory(), input=self.input, output=self.output)
        try:
            answer = asking.prompt(f"{question} (y or n) ")
        except EOFError:
            return True
        except KeyboardInterrupt:
            return False
        return answer.strip().lower() in ("y", "yes")

    def toolbar(self) -> StyleAndTextTuples:
        """Phase, line, node, layer, n_past, memory."""
        return toolbar_text(self.console)
