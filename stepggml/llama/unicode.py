"""Text before tokens: how bytes are written as characters, and where a text is cut before pairs are merged.

Mirrors: llama.cpp/src/unicode.cpp and the regular expressions of llama-vocab.cpp.

Byte-level vocabularies spell every byte as a visible character, so that no token has a blank or control character in
it: the space is "Ġ", the newline "Ċ".

The pre-tokenizers' expressions ask for letters and numbers of all scripts, which Python's `re` cannot say. So a text is
first collapsed: each character outside ASCII becomes one of five stand-ins for its class, and the expressions name
those. llama.cpp does the same, with other stand-ins. Lengths stay, so cuts found in one hold in the other.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Stand-ins from the private-use area. Characters of that area are collapsed too, so none is mistaken for a stand-in.
LETTER_STAND_IN = "\ue000"
NUMBER_STAND_IN = "\ue001"
SPACE_STAND_IN = "\ue002"
PUNCTUATION_STAND_IN = "\ue003"
OTHER_STAND_IN = "\ue004"

STAND_INS = {"L": LETTER_STAND_IN, "N": NUMBER_STAND_IN, "P": PUNCTUATION_STAND_IN}

# What counts as white space outside ASCII.
WHITE_SPACE = frozenset(
    "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

# The inside of character classes, over collapsed text.
L = f"A-Za-z{LETTER_STAND_IN}"
N = f"0-9{NUMBER_STAND_IN}"
S = f"\\t-\\r {SPACE_STAND_IN}"
P = rf"!-#%-*,-/:;?@\[-\]_{{}}{PUNCTUATION_STAND_IN}"

# GPT-2's: contractions, then letters, numbers and the rest each with one blank before, then white space. The last
# blank before a word belongs to the word: (?!\S).
GPT2_REGEX = rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{L}]+| ?[{N}]+| ?[^{S}{L}{N}]+|[{S}]+(?![^{S}])|[{S}]+"

# Llama 3's and Qwen 2's differ in how many digits stay together.
NEWER_REGEX = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    rf"|[^\r\n{L}{N}]?[{L}]+|[{N}]%s| ?[^{S}{L}{N}]+[\r\n]*|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+"
)
LLAMA3_REGEX = NEWER_REGEX % "{1,3}"
QWEN2_REGEX = NEWER_REGEX % ""


class CollapseTable(dict):
    """code point -> what it collapses to; filled as characters are met. For str.translate."""

    def __missing__(self, cpt: int) -> str:
        char = chr(cpt)
        if cpt < 128:
            collapsed = char
        elif char in WHITE_SPACE:
            collapsed = SPACE_STAND_IN
        else:
            major_class = unicodedata.category(char)[0]
            collapsed = STAND_INS.get(major_class, OTHER_STAND_IN)
        self[cpt] = collapsed
        return collapsed


COLLAPSE_TABLE = CollapseTable()


@cache
def compiled(regex_expr: str) -> re.Pattern[str]:
    """An expression made ready."""
    return re.compile(regex_expr)


def unicode_regex_split(text: str, regex_exprs: tuple[str, ...]) -> list[str]:
    """The words of `text`. Each expression cuts the pieces that those before it left; what no match covers is a piece.

    The words' characters are those of the text; bpe_words spells their bytes.
    """
    collapsed = text.translate(COLLAPSE_TABLE)
    pieces = [(0, len(text))]
    for regex_expr in regex_exprs:
        pattern = compiled(regex_expr)
        cut: list[tuple[int, int]] = []
        for first, last in pieces:
            split_piece(pattern, collapsed, first, last, cut)
        pieces = cut

    words = []
    for first, last in pieces:
        words.append(text[first:last])
    return words


def split_piece(pattern: re.Pattern[str], collapsed: str, first: int, last: int, cut: list[tuple[int, int]]) -> None:
    """Append to `cut` the matches inside [first, last) and what lies between them, as (first, last)."""
    start = first
    # a piece of its own, so that looking ahead ends where the piece does
    piece = collapsed[first:last]
    for match in pattern.finditer(piece):
        match_first = first + match.start()
        match_last = first + match.end()
        if match_first > start:
            cut.append((start, match_first))
        if match_last > match_first:
            cut.append((match_first, match_last))
        start = match_last
    if start < last:
        cut.append((start, last))


# ----------------------------------------------------------------------------------------------------------------------
# bytes as characters


@cache
def byte_to_utf8_map() -> dict[int, str]:
    """byte -> character. Visible Latin-1 characters stand for themselves; the other 68, in order, are U+0100 and up."""
    mapped = {}
    n_hidden = 0
    for byte in range(256):
        visible = 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF
        if visible:
            mapped[byte] = chr(byte)
        else:
            mapped[byte] = chr(0x100 + n_hidden)
            n_hidden += 1
    return mapped


@cache
def utf8_to_byte_map() -> dict[str, int]:
    """character -> byte, the way back."""
    mapped = {}
    for byte, char in byte_to_utf8_map().items():
        mapped[char] = byte
    return mapped


def unicode_byte_encode(word: str) -> str:
    """A word with each byte of its UTF-8 spelled as a character."""
    mapped = byte_to_utf8_map()
    spelled = ""
    for byte in word.encode("utf-8", "surrogatepass"):
        spelled += mapped[byte]
    return spelled


def unicode_byte_decode(text: str) -> bytes:
    """The bytes that such characters stand for. A character that stands for none is taken as itself."""
    mapped = utf8_to_byte_map()
    data = bytearray()
    for char in text:
        if char in mapped:
            data.append(mapped[char])
        else:
            data += char.encode("utf-8", "replace")
    return bytes(data)


def unicode_len_utf8(first_byte: int) -> int:
    """Bytes of a UTF-8 character, by its first byte. A stray continuation byte counts as a character of one."""
    if first_byte < 0xC0:
        return 1
    if first_byte < 0xE0:
        return 2
    if first_byte < 0xF0:
        return 3
    return 4
