"""Kinds of command arguments: how each is written, read and completed.

A command's signature names them (`loc: Location`, `n: Count = 1`); command.py reads the signature. A kind is one class
here: `placeholder` is what the usage line calls it, `takes` says whether it ends at a blank or takes the rest of the
line, `parse` turns text into a value, `complete` offers continuations of what was typed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from ..ask.references import read_integer, unquote
from ..errors import DebuggerError
from . import names
from .interface import Shell

WORD = "word"
REST = "rest"
FORMAT = "format"

_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def split_word(text: str) -> tuple[str, str]:
    """The first word and the rest. Blanks inside quotes and brackets do not end a word; an unclosed one is ended by the
    line.
    """
    text = text.lstrip()
    closing: list[str] = []
    quote = ""
    for i, char in enumerate(text):
        if quote:
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char.isspace() and not closing:
            return text[:i], text[i:].lstrip()
    return text, ""


class ArgumentKind:
    """One kind of argument. The base class is a plain word."""

    placeholder = "WORD"
    takes = WORD

    def parse(self, text: str, shell: Shell) -> Any:
        """The value of what was typed. Raises DebuggerError with one line that says what is wrong."""
        return unquote(text)

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        """Continuations: full replacements of `text`."""
        return ()


class Integer(ArgumentKind):
    """A whole number: decimal, hex, or anything `p` can compute to one."""

    placeholder = "N"

    def __init__(self, minimum: int | None = None, placeholder: str = "N") -> None:
        self.minimum = minimum
        self.placeholder = placeholder

    def parse(self, text: str, shell: Shell) -> int:
        value = read_integer(text)
        if value is None:
            value = shell.evaluate_integer(text, self.placeholder)
        if self.minimum is not None and value < self.minimum:
            raise DebuggerError(f"{self.placeholder} must be at least {self.minimum}, got {text}")
        return value


class Number(ArgumentKind):
    """A finite number."""

    placeholder = "X"

    def parse(self, text: str, shell: Shell) -> float:
        try:
            value = float(text)
        except ValueError:
            raise DebuggerError(f"expected a number, got {text!r}") from None
        if not math.isfinite(value):
            raise DebuggerError(f"expected a finite number, got {text!r}")
        return value


class RestOfLine(ArgumentKind):
    """Everything up to the end of the line, as typed."""

    placeholder = "TEXT"
    takes = REST

    def __init__(self, placeholder: str = "TEXT") -> None:
        self.placeholder = placeholder

    def parse(self, text: str, shell: Shell) -> str:
        return text.strip()


class CommandLine(RestOfLine):
    def __init__(self) -> None:
        super().__init__("COMMAND")

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        return shell.command_names(text)


class ExpressionText(ArgumentKind):
    """An expression for `p`, still unread."""

    placeholder = "EXPR"
    takes = REST

    def parse(self, text: str, shell: Shell) -> str:
        return text.strip()

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        return complete_last_name(text, names.expression_names(shell))


class Condition(ExpressionText):
    """`if EXPR` at the end of a line; the `if` may be left out."""

    placeholder = "if EXPR"

    def parse(self, text: str, shell: Shell) -> str:
        return re.sub(r"^if\b\s*", "", text.strip())


class AddressValue(ExpressionText):
    """An address: a number, a tensor (where its data begin), or an expression of them."""

    placeholder = "ADDR"

    def parse(self, text: str, shell: Shell) -> int:
        return shell.evaluate_address(text)


class AddressWord(AddressValue):
    """An address written without blanks, when more arguments follow."""

    takes = WORD


class TensorRef(ArgumentKind):
    """A tensor: node_24, #24, KQ_soft_max, KQ_soft_max-0, model/wte, a local, an address."""

    placeholder = "T"

    def parse(self, text: str, shell: Shell) -> Any:
        return shell.evaluate_tensor(text)

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        return complete_last_name(text, names.tensor_names(shell))


class ElementRef(TensorRef):
    """One element of a tensor: T[i,j,k], in ggml's order of dimensions."""

    placeholder = "T[i,j,k]"

    def parse(self, text: str, shell: Shell) -> Any:
        return shell.evaluate_element(text)


class LocationText(ArgumentKind):
    """Where to stop: file:line, a function, node:12, op:MUL_MAT, name:/re/, layer:3, tensor:NAME."""

    placeholder = "LOC"
    takes = "location"
    KINDS = ("node:", "op:", "name:/", "layer:", "tensor:")

    def parse(self, text: str, shell: Shell) -> str:
        return unquote(text.strip())

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        if text.startswith("op:"):
            return (f"op:{name}" for name in names.op_names())
        if text.startswith("tensor:"):
            return (f"tensor:{name}" for name in names.weight_names(shell))
        if text.startswith("node:"):
            return (
                f"node:{name.removeprefix('node_')}" for name in names.tensor_names(shell) if name.startswith("node_")
            )
        return [*self.KINDS, *names.location_names(shell, text)]


class FileName(ArgumentKind):
    """A file; ~ is the home directory."""

    placeholder = "FILE"

    def parse(self, text: str, shell: Shell) -> str:
        return os.path.expanduser(unquote(text))

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        folder, start = os.path.split(text)
        try:
            with os.scandir(os.path.expanduser(folder) or ".") as entries:
                found = [os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "") for entry in entries]
        except OSError:
            return ()
        return sorted(name for name in found if start.startswith(".") or not os.path.basename(name).startswith("."))


class Choice(ArgumentKind):
    """One of a few words; a unique prefix will do."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.placeholder = "|".join(choices)

    def parse(self, text: str, shell: Shell) -> str:
        if text in self.choices:
            return text
        found = [choice for choice in self.choices if choice.startswith(text)]
        if len(found) != 1:
            raise DebuggerError(f"{text!r} is none of {', '.join(self.choices)}")
        return found[0]

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        return self.choices


class CommandName(ArgumentKind):
    """The name of a command, perhaps of two words."""

    placeholder = "COMMAND"
    takes = REST

    def parse(self, text: str, shell: Shell) -> str:
        return " ".join(text.split())

    def complete(self, text: str, shell: Shell) -> Iterable[str]:
        return shell.command_names(text)


@dataclass(frozen=True)
class FormatSpec:
    """gdb's /NFU: how many, in which form (x d u o t f a c i.e. hex, signed, ...; q: quant blocks), of what size (b h w
    g).
    """

    count: int = 1
    letter: str = ""
    size: str = ""

    MAX_COUNT = 4096


class Format(ArgumentKind):
    """/FMT behind the command's name, such as x/8xw or p/x."""

    placeholder = "/FMT"
    takes = FORMAT

    def parse(self, text: str, shell: Shell) -> FormatSpec:
        match = re.fullmatch(r"(\d{0,9})([a-z]*)", text)
        if match is None:
            raise DebuggerError(f"bad format /{text}: a count, a letter of x d u o t f a c q, a size of b h w g")
        letter = size = ""
        for char in match.group(2):
            if char in "xduotfacq" and not letter:
                letter = char
            elif char in "bhwg" and not size:
                size = char
            else:
                raise DebuggerError(f"bad format /{text}: a count, a letter of x d u o t f a c q, a size of b h w g")
        count = int(match.group(1) or 1)
        if count > FormatSpec.MAX_COUNT:
            raise DebuggerError(f"/{count} is too many: at most {FormatSpec.MAX_COUNT} at once")
        return FormatSpec(count, letter, size)


def complete_last_name(text: str, names: Iterable[str]) -> list[str]:
    """Names that continue the last name in an expression; the part before it is kept. Names with blanks get quotes."""
    match = re.search(r"""(?:'[^']*|"[^"]*|[#$\w][\w/.\-]*)?$""", text)
    start = match.start() if match else len(text)
    head, last = text[:start], text[start:]
    quote = last[:1] if last[:1] in ("'", '"') else ""
    last = last[1:] if quote else last
    found = []
    for name in names:
        if not name.startswith(last):
            continue
        if quote or not re.fullmatch(r"[#$\w][\w/.\-]*", name):
            mark = quote or "'"
            name = f"{mark}{name}{mark}"
        found.append(head + name)
    return found


Count = Annotated[int, Integer(minimum=1)]
AnyInteger = Annotated[int, Integer()]
Float = Annotated[float, Number()]
Word = Annotated[str, ArgumentKind()]
Rest = Annotated[str, RestOfLine()]
Command = Annotated[str, CommandLine()]
Expression = Annotated[str, ExpressionText()]
If = Annotated[str, Condition()]
Address = Annotated[int, AddressValue()]
AddressArg = Annotated[int, AddressWord()]
Tensor = Annotated[Any, TensorRef()]
Element = Annotated[Any, ElementRef()]
Location = Annotated[str, LocationText()]
File = Annotated[str, FileName()]
Name = Annotated[str, CommandName()]
Fmt = Annotated[FormatSpec, Format()]

PLAIN_KINDS: dict[type, ArgumentKind] = {int: Integer(), float: Number(), str: ArgumentKind()}
