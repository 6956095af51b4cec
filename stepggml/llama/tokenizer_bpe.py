"""Byte pair encoding: a word begins as single characters, and the pair with the best merge is joined again and again.

Mirrors: llm_tokenizer_bpe_session of llama.cpp/src/llama-vocab.cpp.

Symbols form a linked list; a queue holds the pairs that a merge exists for, by rank, the leftmost of equals first. A
pair whose symbols have changed since it was queued is stale and skipped.
"""

from __future__ import annotations

import heapq

from .unicode import unicode_byte_encode, unicode_regex_split
from .vocab import LLAMA_TOKEN_NULL, llama_vocab


class llm_symbol:
    """A piece of a word: its text, and the numbers of its neighbours (-1: none). An empty text has been merged away."""

    def __init__(self, text: bytes, prev: int, next: int) -> None:
        self.text = text
        self.prev = prev
        self.next = next


class llm_tokenizer_bpe_session:
    """The tokenizing of one text. Fields while a word is merged: symbols, work_queue of (rank, left, right, text)."""

    def __init__(self, vocab: llama_vocab) -> None:
        self.vocab = vocab
        self.symbols: list[llm_symbol] = []
        self.work_queue: list[tuple[int, int, int, bytes]] = []

    def tokenize(self, text: str, output: list[int]) -> None:
        """Append the token ids of `text` to `output`."""
        words = unicode_regex_split(text, self.vocab.regex_exprs)
        for word in words:
            spelled = unicode_byte_encode(word)
            self.start_word(spelled)
            while len(self.work_queue) > 0:
                self.merge_best_pair()
            self.append_tokens(output)

    def start_word(self, word: str) -> None:
        """Make a symbol of each character, and queue the pairs that can be merged."""
        self.symbols = []
        self.work_queue = []
        whole = word.encode("utf-8")
        if self.vocab.ignore_merges and self.vocab.text_to_token(whole) != LLAMA_TOKEN_NULL:
            # the whole word is a token: nothing to merge
            self.symbols.append(llm_symbol(whole, -1, -1))
            return

        last = len(word) - 1
        for index, char in enumerate(word):
            next = -1 if index == last else index + 1
            self.symbols.append(llm_symbol(char.encode("utf-8"), index - 1, next))
        for i in range(1, len(self.symbols)):
            self.add_new_bigram(i - 1, i)

    def add_new_bigram(self, left: int, right: int) -> None:
        """Queue two neighbours if a merge for them exists."""
        if left == -1 or right == -1:
            return
        left_token = self.symbols[left].text
        right_token = self.symbols[right].text
        rank_found = self.vocab.find_bpe_rank(left_token, right_token)
        if rank_found < 0:
            return
        bigram = (rank_found, left, right, left_token + right_token)
        heapq.heappush(self.work_queue, bigram)

    def merge_best_pair(self) -> None:
        """Take the pair of lowest rank from the queue and join it, unless it is stale."""
        _rank, left, right, text = heapq.heappop(self.work_queue)
        left_symbol = self.symbols[left]
        right_symbol = self.symbols[right]
        if left_symbol.text == b"" or right_symbol.text == b"":
            return
        if left_symbol.text + right_symbol.text != text:
            return

        # the left symbol takes the right one's text and its place in the chain
        left_symbol.text = text
        right_symbol.text = b""
        left_symbol.next = right_symbol.next
        if right_symbol.next >= 0:
            self.symbols[right_symbol.next].prev = left

        # it has new neighbours on both sides
        self.add_new_bigram(left_symbol.prev, left)
        self.add_new_bigram(left, left_symbol.next)

    def append_tokens(self, output: list[int]) -> None:
        """The ids of the symbols left over. One that is not a token goes byte by byte; bytes that are none are lost."""
        for symbol in self.symbols:
            if symbol.text == b"":
                continue
            token = self.vocab.text_to_token(symbol.text)
            if token != LLAMA_TOKEN_NULL:
                output.append(token)
                continue
            for byte in symbol.text:
                token_multibyte = self.vocab.text_to_token(bytes([byte]))
                if token_multibyte != LLAMA_TOKEN_NULL:
                    output.append(token_multibyte)
