"""SentencePiece tokenizing: as byte pair encoding, but the pair that makes the token of the highest score is joined.

Mirrors: llm_tokenizer_spm_session of llama.cpp/src/llama-vocab.cpp.

There are no merges in the file: two neighbours can be joined when what they spell is a token. Blanks are written as
U+2581. What ends up as no token is taken apart the way it was put together, and in the end into byte tokens "<0x0A>".
"""

from __future__ import annotations

import heapq

from .tokenizer_bpe import llm_symbol
from .unicode import unicode_len_utf8
from .vocab import LLAMA_TOKEN_NULL, llama_vocab

SPM_BLANK = "\u2581".encode()


def llama_escape_whitespace(text: bytes) -> bytes:
    """Blanks as U+2581."""
    return text.replace(b" ", SPM_BLANK)


def llama_unescape_whitespace(word: bytes) -> bytes:
    """U+2581 as blanks."""
    return word.replace(SPM_BLANK, b" ")


class llm_tokenizer_spm_session:
    """The tokenizing of one text.

    Fields: symbols; work_queue of (-score, left, right, size); rev_merge (text -> the two symbols it was made of).
    """

    def __init__(self, vocab: llama_vocab) -> None:
        self.vocab = vocab
        self.symbols: list[llm_symbol] = []
        self.work_queue: list[tuple[float, int, int, int]] = []
        self.rev_merge: dict[bytes, tuple[int, int]] = {}

    def tokenize(self, text: bytes, output: list[int]) -> None:
        """Append the token ids of `text`, blanks already escaped, to `output`."""
        self.split_characters(text)
        for i in range(1, len(self.symbols)):
            self.try_add_bigram(i - 1, i)
        while len(self.work_queue) > 0:
            self.merge_best_pair()

        # walk the chain of what is left
        i = 0 if self.symbols else -1
        while i != -1:
            symbol = self.symbols[i]
            self.resegment(symbol.text, output)
            i = symbol.next

    def split_characters(self, text: bytes) -> None:
        """A symbol for each UTF-8 character."""
        offs = 0
        while offs < len(text):
            n = unicode_len_utf8(text[offs])
            char = text[offs : offs + n]
            offs += len(char)
            index = len(self.symbols)
            next = -1 if offs == len(text) else index + 1
            self.symbols.append(llm_symbol(char, index - 1, next))

    def try_add_bigram(self, left: int, right: int) -> None:
        """Queue two neighbours if they spell a token."""
        if left == -1 or right == -1:
            return
        text = self.symbols[left].text + self.symbols[right].text
        token = self.vocab.text_to_token(text)
        if token == LLAMA_TOKEN_NULL:
            return
        # the queue's smallest comes first, so scores are negated; of equals, the leftmost
        score = self.vocab.token_scores[token]
        heapq.heappush(self.work_queue, (-score, left, right, len(text)))
        self.rev_merge[text] = (left, right)

    def merge_best_pair(self) -> None:
        """Take the pair of the highest score from the queue and join it, unless one of the two has changed."""
        _score, left, right, size = heapq.heappop(self.work_queue)
        left_symbol = self.symbols[left]
        right_symbol = self.symbols[right]
        if left_symbol.text == b"" or right_symbol.text == b"":
            return
        if len(left_symbol.text) + len(right_symbol.text) != size:
            return

        # the left symbol takes the right one's text and its place in the chain
        left_symbol.text = left_symbol.text + right_symbol.text
        right_symbol.text = b""
        left_symbol.next = right_symbol.next
        if right_symbol.next >= 0:
            self.symbols[right_symbol.next].prev = left

        # it has new neighbours on both sides
        self.try_add_bigram(left_symbol.prev, left)
        self.try_add_bigram(left, left_symbol.next)

    def resegment(self, text: bytes, output: list[int]) -> None:
        """The token of a symbol; or tokens of its bytes.

        C can also take a symbol apart again by rev_merge. What was merged is always a token, so that never happens;
        the record is kept for whoever watches.
        """
        token = self.vocab.text_to_token(text)
        if token != LLAMA_TOKEN_NULL:
            output.append(token)
            return
        for byte in text:
            token = self.vocab.byte_to_token(byte)
            if token == LLAMA_TOKEN_NULL:
                token = self.vocab.special_unk_id
            if token != LLAMA_TOKEN_NULL:
                output.append(token)
