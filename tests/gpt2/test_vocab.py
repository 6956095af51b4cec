"""The tokenizer: words by the pattern of the C locale, each covered by the longest tokens."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest

from stepggml.ggml import ggml_log_set
from stepggml.gpt2.vocab import gpt_tokenize, gpt_vocab, split_words
from stepggml.runner import BUILT_IN_MODEL, open_program

DATA = Path(__file__).resolve().parents[1] / "data"


def vocab_of(*tokens: bytes) -> gpt_vocab:
    vocab = gpt_vocab()
    for token in tokens:
        vocab.add_token(token)
    return vocab


@pytest.fixture(scope="module")
def gpt2() -> gpt_vocab:
    """The vocabulary of GPT-2, all 50257 tokens."""
    content = gzip.decompress((DATA / "gpt2-vocab.gz").read_bytes())
    vocab = gpt_vocab()
    at = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        vocab.add_token(content[at + 4 : at + 4 + length])
        at += 4 + length
    return vocab


@pytest.fixture
def log():
    lines: list[str] = []
    ggml_log_set(lambda level, text, user_data: lines.append(text))
    yield lines
    ggml_log_set(None)


def words(text: bytes) -> list[bytes]:
    found: list[bytes] = []
    split_words(text, found)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Hello my name is", [b"Hello", b" my", b" name", b" is"]),
        (b"it's we're I'll don't", [b"it", b"'s", b" we", b"'re", b" I", b"'ll", b" don", b"'t"]),
        (b"abc123 45.6", [b"abc", b"123", b" 45", b".", b"6"]),
        (b"a  b", [b"a", b" ", b" b"]),
        (b"a   ", [b"a", b"   "]),
        (b"a\n\nb", [b"a", b"\n", b"\n", b"b"]),
        (b"\ta", [b"\t", b"a"]),
        (b"x_y", [b"x", b"_", b"y"]),
        (b"'S", [b"'", b"S"]),
        # a byte of 128 or more is not a letter in the C locale
        ("é à".encode(), ["é".encode(), b" \xc3\xa0"]),
        ("naïve".encode(), [b"na", "ï".encode(), b"ve"]),
        (b"a\0b", [b"a", b"\0", b"b"]),
        (b"", []),
    ],
)
def test_words(text: bytes, expected: list[bytes]) -> None:
    assert words(text) == expected


def test_words_cover_any_text() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        text = bytes(rng.choice(list(b" \n\tab'sreZ09.,\xc3\xa9\x00_"), size=40).tolist())
        assert b"".join(words(text)) == text


def test_gpt2_vectors(gpt2) -> None:
    assert gpt_tokenize(gpt2, b"Hello my name is") == [15496, 616, 1438, 318]
    assert gpt2.end_of_text_id() == 50256


def test_longest_match_is_not_byte_pair_encoding(gpt2) -> None:
    """At every place the longest token wins, whatever merges would have made of the word."""
    text = b"The untokenizable hippopotamuses, 12345 times; don't!\n\n  caf\xc3\xa9"
    ids = gpt_tokenize(gpt2, text)
    assert b"".join(gpt2.id_to_token[id] for id in ids) == text
    expected = []
    for word in words(text):
        while word:
            longest = max(range(len(word) + 1), key=lambda n, w=word: n if w[:n] in gpt2.token_to_id else -1)
            expected.append(gpt2.token_to_id[word[:longest]])
            word = word[longest:]
    assert ids == expected


def test_greedy_from_the_left() -> None:
    vocab = vocab_of(b"a", b"b", b"c", b"ab", b"bcd", b"d")
    assert gpt_tokenize(vocab, b"abcd") == [3, 2, 5]


def test_unknown_bytes_are_reported_and_skipped(log) -> None:
    vocab = vocab_of(b"a", b"b")
    assert gpt_tokenize(vocab, b"axb") == [0, 1]
    assert log == ["gpt_tokenize: unknown token 'x'\n"]


def test_of_equal_tokens_the_later_counts() -> None:
    assert gpt_tokenize(vocab_of(b"a", b"b", b"a"), b"a") == [2]


def test_special_tokens_are_cut_out_first() -> None:
    vocab = vocab_of(b"<", b">", b"x", b"<x>", b"<|end|>", b" <")
    assert gpt_tokenize(vocab, b"x<x>x") == [2, 0, 2, 1, 2]
    vocab.add_special_token(b"<x>")
    assert gpt_tokenize(vocab, b"x<x>x") == [2, 3, 2]
    # of several, the one registered first wins, not the longest
    vocab.add_special_token(b"<|end|>")
    assert gpt_tokenize(vocab, b"<|end|><x>") == [4, 3]


def test_a_long_word_takes_no_long_time(gpt2, log) -> None:
    """Of the processor's time it takes half a second; with a look at every pair of places it would be minutes."""
    started = time.process_time()
    ids = gpt_tokenize(gpt2, b"a" * 200_000)
    assert time.process_time() - started < 20
    assert b"".join(gpt2.id_to_token[id] for id in ids) == b"a" * 200_000


def test_empty_vocabulary(log) -> None:
    assert gpt_tokenize(gpt_vocab(), b"abc") == []
    assert len(log) == 3


def test_built_in_model() -> None:
    program = open_program(BUILT_IN_MODEL)
    assert program.tokenize(b"Old Mr. Crow said") == [46, 292, 358, 13, 620, 401]
    assert program.read_vocab().end_of_text_id() == 1023
