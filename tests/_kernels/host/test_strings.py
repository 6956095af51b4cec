"""Arrays of strings: the compiled reader against the loop of gguf_read.py, and its look-ups against a dict's."""

from __future__ import annotations

import gc
import mmap
import random
import struct
from pathlib import Path

import pytest

from stepggml import _kernels
from stepggml.ggml import gguf_read
from stepggml.llama.vocab import index_strings, llama_vocab

U64_MAX = 2**64 - 1


def packed(texts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


def both(data: bytes, pos: int, n: int, limit: int) -> tuple[list[bytes], int]:
    """What either reader finds, which must be the same."""
    expected = gguf_read.split_strings(data, pos, n, limit)
    strings, end = _kernels.split_strings(data, pos, n, limit)
    assert (list(strings), end) == expected
    assert len(strings) == len(expected[0])
    return expected


def test_texts_come_back() -> None:
    texts = [b"", b"a", b"\0\0", "Ġ t".encode(), b"x" * 1000, b"12345678", b"123456789"]
    data = b"head" + packed(texts) + b"tail"
    assert both(data, 4, len(texts), len(data)) == (texts, len(data) - 4)
    assert both(data, 4, 3, len(data))[0] == texts[:3]
    assert both(data, 4, 0, len(data)) == ([], 4)


def test_a_sequence() -> None:
    texts = [b"%d" % i for i in range(100)]
    data = packed(texts)
    strings, _end = _kernels.split_strings(data, 0, 100, len(data))
    assert strings[0] == b"0" and strings[-1] == b"99" and strings[99] == b"99" and strings[-100] == b"0"
    assert strings[3:9] == texts[3:9] and strings[::-1] == texts[::-1]
    for index in (100, -101, 2**62, -(2**62)):
        with pytest.raises(IndexError):
            strings[index]
    assert b"7" in strings and b"100" not in strings
    assert repr(strings) == "[b'0', b'1', b'2', b'3', ...]"
    data = packed([b"x" * 1000])
    assert len(repr(_kernels.split_strings(data, 0, 1, len(data))[0])) < 50


def test_strings_outlive_the_file(tmp_path: Path) -> None:
    texts = [b"one", b"two", b"three"]
    path = tmp_path / "strings"
    path.write_bytes(packed(texts))
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    strings, _end = _kernels.split_strings(data, 0, 3, len(data))
    positions = strings.positions(True)
    data.close()
    path.write_bytes(b"")
    assert list(strings) == texts
    del strings
    gc.collect()
    assert positions[b"three"] == 2


@pytest.mark.parametrize("length", [5, 6, 2**31, 2**32 + 4, 2**63 - 1, 2**63, U64_MAX - 12, U64_MAX - 11, U64_MAX])
def test_lengths_that_lie(length: int) -> None:
    data = packed([b"good"]) + struct.pack("<Q", length) + b"bad!"
    assert both(data, 0, 2, len(data)) == ([b"good"], 12)


@pytest.mark.parametrize("n", [3, 2**24, 2**31, 2**32, 2**40, 2**63 - 1])
def test_counts_that_lie(n: int) -> None:
    data = packed([b"one", b"two"])
    assert both(data, 0, n, len(data)) == ([b"one", b"two"], len(data))


def test_limits() -> None:
    texts = [b"one", b"two", b"three"]
    data = packed(texts)
    for limit in range(len(data) + 1):
        both(data, 0, 3, limit)
    for pos in range(len(data) + 1):
        both(data, pos, 3, len(data))
    # a position behind the end, a limit behind the end: nothing is read there
    assert list(_kernels.split_strings(data, 1000, 3, len(data))[0]) == []
    assert list(_kernels.split_strings(data, U64_MAX, 3, U64_MAX)[0]) == []
    assert list(_kernels.split_strings(data, 0, 9, U64_MAX)[0]) == texts
    assert list(_kernels.split_strings(b"", 0, 9, 0)[0]) == []


def test_damaged_arrays() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        data = bytearray(packed([rng.randbytes(rng.randrange(12)) for _ in range(rng.randrange(8))]))
        for _ in range(rng.randrange(3)):
            if data:
                data[rng.randrange(len(data))] = rng.choice((0, 1, 8, 127, 255))
        both(bytes(data), rng.choice((0, 0, 3)), rng.randrange(10), rng.randrange(len(data) + 1))


@pytest.mark.parametrize("keep_last", [True, False])
@pytest.mark.parametrize("n", [0, 1, 5, 6, 7, 48, 49, 1000, 20_000])
def test_positions(n: int, keep_last: bool) -> None:
    rng = random.Random(n)
    # short ones, so that many occur twice; and some that differ in the last byte or the length only
    texts = [rng.randbytes(rng.randrange(3)) for _ in range(n // 2)]
    texts += [b"\0" * (i % 40) + b"abcdefgh"[: i % 9] for i in range(n - n // 2)]
    data = packed(texts)
    strings, _end = _kernels.split_strings(data, 0, n, len(data))
    expected = index_strings(texts, keep_last)
    found = index_strings(strings, keep_last)
    assert type(expected) is dict and type(found) is not dict
    assert dict(found.items()) == expected and set(found) == set(expected) and len(found) == len(expected)
    for text in texts:
        assert found[text] == expected[text] and text in found
    for text in (b"absent", b"\0" * 41, b"abcdefghi"):
        assert found.get(text) is None and found.get(text, -1) == -1 and text not in found
        with pytest.raises(KeyError):
            found[text]
    with pytest.raises(TypeError):
        found.get("text")


# ----------------------------------------------------------------------------------------------------------------------
# merges


def rank_in_pairs(merges: list[bytes], left: bytes, right: bytes) -> int:
    """The rank of a merge as C has it: every word cut into two at its first blank behind the first character."""
    for rank, word in enumerate(merges):
        pos = word.find(b" ", 1)
        if pos != -1 and (word[:pos], word[pos + 1 :]) == (left, right):
            return rank
    return -1


def test_merges_are_found_by_their_text() -> None:
    merges = [b"a b", b"b a", b"a b", b"  b", b" a b", b"ab", b"", b" ", b"  ", b"a  b", b"a ", b" b", b"a b c", b"a"]
    data = packed(merges)
    strings, _end = _kernels.split_strings(data, 0, len(merges), len(data))
    parts = [b"", b" ", b"  ", b"a", b"b", b"ab", b" a", b" b", b"a ", b"b ", b"a b", b"b c", b"c", b" b c"]
    for array in (merges, strings):
        vocab = llama_vocab()
        vocab.bpe_ranks = index_strings(array, keep_last=False)
        for left in parts:
            for right in parts:
                assert vocab.find_bpe_rank(left, right) == rank_in_pairs(merges, left, right), (left, right)
    assert vocab.find_bpe_rank(b"a", b"b") == 0 and vocab.find_bpe_rank(b" ", b"b") == 3
