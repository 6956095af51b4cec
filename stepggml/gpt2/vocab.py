"""The vocabulary, and text to tokens and back.

Mirrors: gpt_vocab and gpt_tokenize of ggml/examples/common.cpp.

Everything here is bytes, as std::string is in C: a token is any run of bytes, and may be half of a UTF-8 character.
This is not the byte pair encoding of OpenAI's GPT-2. Words are cut out by the same pattern, but each is then covered
greedily by the longest tokens that fit, without merge ranks; on a few words the two disagree.

Leaves out: reading a vocabulary from JSON (gpt_vocab_init) and the self-test against a file of prompts.
"""

from __future__ import annotations

import re

from ..ggml import GGML_LOG_WARN

# What one word is. The classes are those of the C locale, so a byte of 128 or more is not a letter: it counts as
# punctuation.
WORD = re.compile(
    rb"'s|'t|'re|'ve|'m|'ll|'d"
    rb"| ?[A-Za-z]+"
    rb"| ?[0-9]+"
    rb"| ?[^\sA-Za-z0-9]+"
    rb"|\s+(?!\S)"
    rb"|\s+"
)

# GPT-2's id of <|endoftext|>, for vocabularies that do not name the token.
END_OF_TEXT_ID = 50256
END_OF_TEXT = b"<|endoftext|>"


class gpt_vocab:
    """Tokens by id and ids by token.

    Fields: token_to_id (bytes -> int; of a token that occurs twice, the later id), id_to_token (list of bytes),
    special_tokens (list of bytes, in order of registration), max_token_len (bytes of the longest token).
    """

    def __init__(self) -> None:
        self.token_to_id: dict[bytes, int] = {}
        self.id_to_token: list[bytes] = []
        self.special_tokens: list[bytes] = []
        self.max_token_len = 0

    def add_token(self, token: bytes) -> None:
        """Append a token; its id is its place."""
        id = len(self.id_to_token)
        self.token_to_id[token] = id
        self.id_to_token.append(token)
        if len(token) > self.max_token_len:
            self.max_token_len = len(token)

    def add_tokens(self, tokens: list[bytes]) -> None:
        """Append tokens; the id of each is its place."""
        first = len(self.id_to_token)
        self.id_to_token += tokens
        ids = range(first, len(self.id_to_token))
        self.token_to_id.update(zip(tokens, ids, strict=True))
        longest = max(map(len, tokens), default=0)
        self.max_token_len = max(self.max_token_len, longest)

    def add_special_token(self, token: bytes) -> None:
        """Register a token that gpt_tokenize cuts out of the text before anything else."""
        self.special_tokens.append(token)

    def end_of_text_id(self) -> int:
        """The id that ends a text.

        ggml's example knows only 50256; here a vocabulary that has <|endoftext|> may place it elsewhere.
        """
        return self.token_to_id.get(END_OF_TEXT, END_OF_TEXT_ID)


def split_words(text: bytes, words: list[bytes]) -> None:
    """Append the words of `text` to `words`: runs of letters, of digits, of anything else, with one blank in front."""
    for match in WORD.finditer(text):
        words.append(match.group())


def split_special_tokens(vocab: gpt_vocab, text: bytes, words: list[bytes]) -> None:
    """Append the words of `text`, with each registered special token as a word of its own."""
    if not vocab.special_tokens:
        split_words(text, words)
        return

    # a literal alternation in order of registration: the first that fits wins, not the longest
    literals = []
    for token in vocab.special_tokens:
        literals.append(re.escape(token))
    special = re.compile(b"|".join(literals))

    start = 0
    for match in special.finditer(text):
        split_words(text[start : match.start()], words)
        words.append(match.group())
        start = match.end()
    split_words(text[start:], words)


def gpt_tokenize(vocab: gpt_vocab, text: bytes) -> list[int]:
    """Token ids of `text`. C: gpt_tokenize.

    Each word is covered from left to right, at every place by the longest token that matches there. A byte that no
    token covers is reported and skipped.
    """
    # words: what the pattern finds, one after the other
    words: list[bytes] = []
    split_special_tokens(vocab, text, words)

    # then cover each word with the longest tokens
    tokens: list[int] = []
    for word in words:
        i = 0
        while i < len(word):
            # no token is longer than max_token_len, so longer candidates need no look-up
            j = min(len(word), i + vocab.max_token_len)
            while j > i and word[i:j] not in vocab.token_to_id:
                j -= 1
            if j > i:
                id = vocab.token_to_id[word[i:j]]
                tokens.append(id)
                i = j
            else:
                unknown = word[i : i + 1].decode("latin-1")
                GGML_LOG_WARN(f"gpt_tokenize: unknown token {unknown!r}\n")
                i += 1
    return tokens
