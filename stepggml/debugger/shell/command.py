"""Commands: plain functions with a decorator. Parsing, completion and help come from the signature and the docstring.

    @command("si", group="run", needs="run")
    def stepi(session: Session, n: Count = 1):
        \"\"\"Run N graph nodes (default 1), and stop after them.

        Example: si 3
        \"\"\"
        return session.step_node(n)

The first parameter is the session or, when it is called `shell`, the shell (interface.py). The others are arguments;
their kinds are in arguments.py. What a command returns is shown: a Stop (as a context view), a text, a line or lines; a
command never prints. Files of commands/ are found by looking.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

from ..errors import DebuggerError
from ..hints import did_you_mean
from ..session import Session
from .arguments import FORMAT, PLAIN_KINDS, REST, ArgumentKind, Choice, split_word
from .interface import Shell

# Groups in the order of `help`, with what they are about.
GROUPS: dict[str, str] = {
    "run": "going forwards and backwards",
    "stops": "where to stop",
    "look": "looking at values, tensors and source",
    "memory": "addresses, bytes and layout",
    "why": "reasons",
    "change": "changing values",
    "compare": "comparing runs",
    "script": "scripts, settings and help",
}

_WORD = re.compile(r"\s*([A-Za-z][\w-]*)(?:/(\S*))?\s*(.*)", re.DOTALL)
_GAP = "location"


@dataclass(frozen=True)
class Parameter:
    """One argument of a command."""

    name: str
    kind: ArgumentKind
    default: Any = inspect.Parameter.empty
    many: bool = False

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty and not self.many

    @property
    def usage(self) -> str:
        """How the usage line writes it."""
        word = self.kind.placeholder
        if self.many:
            return f"[{word}...]"
        return word if self.required else f"[{word}]"


@dataclass(frozen=True)
class Command:
    """A command as the registry keeps it."""

    name: str
    function: Callable[..., Any]
    aliases: tuple[str, ...]
    group: str
    needs: str
    repeats: bool
    draws: bool
    parameters: tuple[Parameter, ...] = field(repr=False)
    takes_shell: bool = False

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, in one line."""
        return " ".join(itertools.takewhile(bool, self._doc()))

    @property
    def description(self) -> list[str]:
        """The docstring's lines after the first paragraph, without the examples."""
        rows = itertools.dropwhile(bool, self._doc())
        return [line for line in rows if not line.startswith("Example:")]

    @property
    def examples(self) -> list[str]:
        """The command lines of `Example:`."""
        return [line.removeprefix("Example:").strip() for line in self._doc() if line.startswith("Example:")]

    def _doc(self) -> list[str]:
        return inspect.cleandoc(self.function.__doc__ or "").split("\n")

    @property
    def usage(self) -> str:
        """The command with its arguments."""
        words = self.name
        if self.parameters and self.parameters[0].kind.takes == FORMAT:
            words += "[/FMT]"
        return " ".join([words, *(p.usage for p in self.parameters if p.kind.takes != FORMAT)])

    def parse(self, text: str, format_text: str | None, shell: Shell) -> list[Any]:
        """Values for the parameters. Raises DebuggerError."""
        parameters = list(self.parameters)
        values: list[Any] = []
        if parameters and parameters[0].kind.takes == FORMAT:
            parameter = parameters.pop(0)
            if format_text is None and text.startswith("/"):
                format_text, text = split_word(text[1:])
            values.append(parameter.kind.parse(format_text or "", shell))
        elif format_text is not None:
            raise DebuggerError(f"{self.name} takes no format; usage: {self.usage}")

        for parameter in parameters:
            if parameter.many:
                while text:
                    word, text = split_word(text)
                    values.append(parameter.kind.parse(word, shell))
                return values
            if not text:
                if parameter.required:
                    raise DebuggerError(
                        f"{self.name} needs {parameter.kind.placeholder}; usage: {self.usage}{self._such_as()}"
                    )
                values.append(parameter.default)
                continue
            word, text = take_argument(parameter.kind, text)
            if not word and parameter.required:
                raise DebuggerError(f"{self.name} needs {parameter.kind.placeholder}; usage: {self.usage}")
            values.append(parameter.kind.parse(word, shell) if word else parameter.default)
        if text:
            raise DebuggerError(f"{self.name}: too much: {text[:40]!r}; usage: {self.usage}{self._such_as()}")
        return values

    def _such_as(self) -> str:
        return f"; for instance: {self.examples[0]}" if self.examples else ""

    def call(self, values: list[Any], shell: Shell) -> Any:
        """Run the command."""
        return self.function(shell if self.takes_shell else shell.session, *values)


def check_needs(needs: str, session: Session) -> None:
    """Raise DebuggerError when the session is not where a command needs it to be.

    needs: "" always, "run" a stopped run, "graph" a graph, "move" a stopped run or one that is yet to begin.
    """
    if not needs:
        return
    if session.state == "idle":
        if needs == "move":
            return
        raise DebuggerError("nothing is running yet: `start` runs to the first line, `run` to the first breakpoint")
    if session.state == "exited":
        raise DebuggerError("the program has ended: `restart` runs it again, with the breakpoints kept")
    if needs == "graph" and session.graph is None:
        raise DebuggerError(
            "there is no graph yet: `si` runs to the first node, `advance gpt2_graph` to where one is built"
        )


def take_argument(kind: ArgumentKind, text: str) -> tuple[str, str]:
    """The part of `text` that an argument of this kind takes, and what is left."""
    if kind.takes == REST:
        return text, ""
    if kind.takes == _GAP:
        match = re.search(r"(?:^|\s+)if\b", text)
        return (text[: match.start()], text[match.start() :].strip()) if match else (text, "")
    return split_word(text)


class Registry:
    """All commands, and how an abbreviation finds one."""

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}
        self.aliases: dict[str, str] = {}

    def add(self, command: Command) -> None:
        """Enter a command. A name that is taken is a mistake of the programmer."""
        for name in (command.name, *command.aliases):
            if name in self.aliases:
                raise ValueError(f"two commands are called {name!r}")
            self.aliases[name] = command.name
        self.commands[command.name] = command

    def __iter__(self) -> Iterator[Command]:
        return iter(self.commands.values())

    def names(self) -> list[str]:
        """Names and aliases, those of two words included."""
        return sorted(self.aliases)

    def group_words(self, first: str) -> list[str]:
        """The second words that may follow `first`."""
        return sorted(name.split(" ", 1)[1] for name in self.commands if name.startswith(first + " "))

    def resolve(self, line: str) -> tuple[Command, str, str | None]:
        """The command that a line begins with, the text of its arguments, and its /FMT. Raises DebuggerError."""
        line = line.strip()
        command, position, format_text = self.find(line)
        return command, line[position:], format_text

    def find(self, line: str) -> tuple[Command, int, str | None]:
        """As resolve, with the position where the arguments begin instead of their text."""
        match = _WORD.match(line)
        if match is None:
            got = repr(line.strip()[:20])
            raise DebuggerError(f"a command begins with a letter, got {got} (`help` lists the commands)")
        word, format_text, rest = match.groups()
        position = match.start(3)
        first = self.expand(word, self.first_words())
        if self.group_words(first):
            second, after = split_word(rest)
            name = self.second(first, second)
            if name is not None:
                return self.commands[self.aliases[name]], len(line) - len(after), format_text
        command = self.commands.get(self.aliases.get(first, ""))
        if command is None:
            raise self.no_second_word(first, rest)
        return command, position, format_text

    def second(self, first: str, word: str) -> str | None:
        """The two-word command that `first word` names, or None when there is none such."""
        if not word:
            return None
        names = {name.split(" ", 1)[1]: name for name in self.aliases if name.startswith(first + " ")}
        if word in names:
            return names[word]
        found = {self.aliases[name]: name for second, name in names.items() if second.startswith(word)}
        if len(found) > 1 and first not in self.commands:
            raise DebuggerError(f"{first} {word!r} is ambiguous: {', '.join(sorted(found))}")
        return next(iter(found.values())) if len(found) == 1 else None

    def first_words(self) -> set[str]:
        """What a line may begin with."""
        return {name.split(" ", 1)[0] for name in self.aliases}

    def expand(self, word: str, words: Iterable[str]) -> str:
        """The one word that `word` is a prefix of; exact matches win. Raises DebuggerError."""
        words = set(words)
        if word in words:
            return word
        found = sorted(name for name in words if name.startswith(word))
        # several names of one command are one match
        targets = {self.aliases.get(name, name) for name in found}
        if len(targets) == 1:
            return found[0]
        if found:
            raise DebuggerError(f"{word!r} is ambiguous: {', '.join(sorted(targets))}")
        raise DebuggerError(f"no command {word!r}{did_you_mean(word, words)} (`help` lists the commands)")

    def no_second_word(self, first: str, rest: str) -> DebuggerError:
        """What to say when a command of two words lacks its second."""
        words = self.group_words(first)
        typed = split_word(rest)[0]
        if not typed:
            return DebuggerError(f"{first} what? {', '.join(words)}")
        return DebuggerError(
            f"no command {first + ' ' + typed!r}{did_you_mean(typed, words)}; there is: {', '.join(words)}"
        )


registry = Registry()


def command(
    name: str, *, aliases: Iterable[str] = (), group: str, needs: str = "", repeats: bool = True, draws: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a command.

    needs: see check_needs. repeats: whether an empty line does it again. draws: `-o
    FILE` is an argument of its own; every other command can save what it shows with `-o FILE.svg`.
    """
    if group not in GROUPS:
        raise ValueError(f"command {name!r}: no group {group!r}")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        first, *rest = inspect.signature(function).parameters.values()
        parameters = tuple(parameter_of(function, p) for p in rest)
        registry.add(
            Command(
                name,
                function,
                tuple(aliases),
                group,
                needs,
                repeats,
                draws,
                parameters,
                takes_shell=first.name == "shell",
            )
        )
        return function

    return decorate


def parameter_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Parameter:
    """A parameter of a command's function as an argument of the command."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = eval(annotation, function.__globals__)
    is_many = parameter.kind is parameter.VAR_POSITIONAL
    return Parameter(parameter.name, kind_of(annotation), parameter.default, is_many)


def kind_of(annotation: Any) -> ArgumentKind:
    """The kind of argument that an annotation asks for."""
    for candidate in (annotation, *get_args(annotation)):
        if get_origin(candidate) is Annotated:
            return candidate.__metadata__[0]
        if get_origin(candidate) is Literal:
            return Choice(*get_args(candidate))
        if candidate in PLAIN_KINDS:
            return PLAIN_KINDS[candidate]
    raise TypeError(f"no kind of argument for {annotation!r}")


def load_commands() -> Registry:
    """Import every file of commands/, so that the registry is full."""
    folder = importlib.import_module(f"{__package__}.commands")
    for module_info in pkgutil.iter_modules(folder.__path__):
        if not module_info.name.startswith("_"):
            importlib.import_module(f"{folder.__name__}.{module_info.name}")
    return registry
