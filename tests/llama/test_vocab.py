"""Tokenizers: the cases of llama.cpp, the tokenizers library, special tokens, and a merge step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_files import BOOL, F32, I32, STRING, U32, File, tiny_llama
from golden import DATA

from stepggml.ggml import ggml_log_set
from stepggml.llama.loader import llama_model_loader
from stepggml.llama.tokenize import llama_detokenize, llama_token_to_piece, llama_tokenize
from stepggml.llama.tokenizer_bpe import llm_tokenizer_bpe_session
from stepggml.llama.unicode import unicode_byte_decode, unicode_byte_encode, unicode_regex_split
from stepggml.llama.vocab import PRE_TOKENIZERS, llama_vocab, load_vocab

GGUF = DATA / "gguf"
SEPARATOR = b"\n__ggml_vocab_test__\n"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


def read_vocab(path: Path) -> llama_vocab:
    ml = llama_model_loader(path)
    vocab = llama_vocab()
    load_vocab(ml, vocab)
    ml.close()
    return vocab


@pytest.fixture(scope="module")
def gpt2() -> llama_vocab:
    return read_vocab(GGUF / "ggml-vocab-gpt-2.gguf")


@pytest.fixture(scope="module")
def spm() -> llama_vocab:
    return read_vocab(GGUF / "ggml-vocab-llama-spm.gguf")


def cases(name: str) -> list[tuple[bytes, list[int]]]:
    """Texts and their token ids, as llama.cpp's test has them."""
    texts = (GGUF / f"{name}.gguf.inp").read_bytes().split(SEPARATOR)
    lines = (GGUF / f"{name}.gguf.out").read_text().split("\n")
    assert len(texts) == len(lines) > 40
    return [(text, [int(id) for id in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.mark.parametrize("name", ["ggml-vocab-gpt-2", "ggml-vocab-llama-spm"])
def test_cases_of_llama_cpp(name: str, gpt2: llama_vocab, spm: llama_vocab) -> None:
    vocab = gpt2 if name.endswith("gpt-2") else spm
    for text, ids in cases(name):
        assert llama_tokenize(vocab, text, False, False) == ids, text
        assert llama_detokenize(vocab, ids, True) == text


def test_the_tokenizers_library_agrees(gpt2: llama_vocab) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed")
    merges = sorted(gpt2.bpe_ranks, key=gpt2.bpe_ranks.get)
    model = tokenizers.models.BPE(
        vocab={text.decode(): id for text, id in gpt2.token_to_id.items()},
        merges=[tuple(merge.decode().split(" ")) for merge in merges],
    )
    other = tokenizers.Tokenizer(model)
    other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    texts = [text for text, _ids in cases("ggml-vocab-gpt-2")]
    texts += [Path(__file__).read_bytes(), "Zwölf Boxkämpfer 1234567 \u0662\u0663 \u4f60\u597d\u3000!".encode()]
    for text in texts:
        assert llama_tokenize(gpt2, text, False, False) == other.encode(text.decode()).ids, text


def test_every_byte_survives(gpt2: llama_vocab, spm: llama_vocab) -> None:
    text = "".join(chr(c) for c in (*range(256), 0x3042, 0x1F600, 0xE000)).encode()
    for vocab in (gpt2, spm):
        assert llama_detokenize(vocab, llama_tokenize(vocab, text, False, False), True) == text
    # SPM falls back to bytes, so it keeps even what is not UTF-8
    assert llama_detokenize(spm, llama_tokenize(spm, b"a\xff\x80b", False, False), True) == b"a\xff\x80b"
    assert llama_tokenize(gpt2, b"\xff", False, False) == llama_tokenize(gpt2, "\ufffd".encode(), False, False)


def test_bytes_as_characters() -> None:
    assert unicode_byte_encode(" a\né") == "ĠaĊÃ©"
    assert unicode_byte_decode("ĠaĊÃ©") == " a\né".encode()
    assert len({unicode_byte_encode(bytes([b]).decode("latin-1")) for b in range(128)}) == 128
    # a character outside the map is taken as it is
    assert unicode_byte_decode("\u4f60") == "\u4f60".encode()


PRE_CASES = [
    ("gpt-2", "I'm  12345 ok!?\n\n x", ["I", "'m", " ", " 12345", " ok", "!?", "\n\n", " x"]),
    ("smollm", "a 123", ["a", " ", "1", "2", "3"]),
    ("llama-bpe", "I'M 12345\n\n  x", ["I", "'M", " ", "123", "45", "\n\n", " ", " x"]),
    ("qwen2", "x12 ..\n", ["x", "1", "2", " ..\n"]),
    ("default", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
]


@pytest.mark.parametrize(("pre", "text", "words"), PRE_CASES)
def test_pre_tokenizers(pre: str, text: str, words: list[str]) -> None:
    assert unicode_regex_split(text, PRE_TOKENIZERS[pre]) == words


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_pieces_add_up(pre: str) -> None:
    text = "Ünïcödé \u0662\u0663 \ue000\U0010ffff\u3000 don't 'LL\t\r\n  \n0x1F ½Ⅷ³ \u200b\u00a0end  "
    words = unicode_regex_split(text, PRE_TOKENIZERS[pre])
    assert "".join(words) == text and "" not in words


def test_a_merge_at_a_time() -> None:
    """What a learner sees who steps through the merging of one word."""
    vocab = llama_vocab()
    tokens = ["l", "o", "w", "e", "r", "lo", "low", "er", "lower"]
    vocab.id_to_token = [t.encode() for t in tokens]
    vocab.token_to_id = {t.encode(): i for i, t in enumerate(tokens)}
    vocab.bpe_ranks = {b"l o": 0, b"lo w": 1, b"e r": 2, b"low er": 3, b"w e": 4}
    session = llm_tokenizer_bpe_session(vocab)
    session.start_word("lower")
    seen = []
    while session.work_queue:
        session.merge_best_pair()
        seen.append([s.text.decode() for s in session.symbols if s.text])
    # "we" was queued, but its w is gone by the time its turn comes: nothing happens
    assert seen == [["lo", "w", "e", "r"], ["low", "e", "r"], ["low", "er"], ["lower"], ["lower"]]
    output: list[int] = []
    session.append_tokens(output)
    assert output == [8]


# ----------------------------------------------------------------------------------------------------------------------
# special tokens and keys


def with_specials(tmp_path: Path, **keys: tuple[int, object]) -> llama_vocab:
    file = tiny_llama()
    tokens = file.kv["tokenizer.ggml.tokens"][1]
    tokens[100:103] = ["<|im_end|>", "<|im_end|>!", "mine"]
    types = file.kv["tokenizer.ggml.token_type"][1]
    types[100:103] = [3, 3, 4]
    file.kv.update({"tokenizer.ggml." + key: value for key, value in keys.items()})
    return read_vocab(file.write(tmp_path / "v.gguf"))


def test_special_tokens_are_cut_out(tmp_path: Path) -> None:
    vocab = with_specials(tmp_path)
    t = vocab.token_to_id[b"t"]
    # the longest first; control tokens only when asked for, the user's own always
    assert llama_tokenize(vocab, b"t<|im_end|>!<|im_end|>t", False, True) == [t, 101, 100, t]
    assert 100 not in llama_tokenize(vocab, b"t<|im_end|>", False, False)
    assert llama_tokenize(vocab, b"tminet", False, False) == [t, 102, t]
    assert vocab.special_eot_id == 100 and vocab.special_eog_ids == {100, 111}
    assert llama_token_to_piece(vocab, 100, False) == b"" and llama_token_to_piece(vocab, 100, True) == b"<|im_end|>"


def test_begin_and_end(tmp_path: Path) -> None:
    vocab = with_specials(tmp_path, add_bos_token=(BOOL, True), add_eos_token=(BOOL, True), eos_token_id=(U32, 5))
    t = vocab.token_to_id[b"t"]
    assert llama_tokenize(vocab, b"t", True, False) == [111, t, 5]
    assert llama_tokenize(vocab, b"", True, False) == [111, 5]
    assert llama_tokenize(vocab, b"", False, False) == []


def test_bad_special_ids_fall_back(tmp_path: Path) -> None:
    vocab = with_specials(tmp_path, bos_token_id=(U32, 99999))
    assert vocab.special_bos_id == 11


def spm_file(**keys: tuple[int, object]) -> File:
    """Scores prefer "ab" to "bc"."""
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "b", "c", "ab", "bc", "\u2581ab"]
    tokens += [f"<{i}>" for i in range(112 - len(tokens))]
    file = tiny_llama()
    file.kv.update(
        {
            "tokenizer.ggml.model": (STRING, "llama"),
            "tokenizer.ggml.tokens": (STRING, tokens),
            "tokenizer.ggml.scores": (F32, [0.0] * 8 + [-1.0, -2.0, -3.0] + [0.0] * 101),
            "tokenizer.ggml.token_type": (I32, [2, 3, 3, 6] + [1] * 108),
        }
    )
    for key in ("pre", "merges", "bos_token_id", "eos_token_id"):
        del file.kv["tokenizer.ggml." + key]
    file.kv.update({"tokenizer.ggml." + key: value for key, value in keys.items()})
    return file


def test_spm(tmp_path: Path) -> None:
    vocab = read_vocab(spm_file().write(tmp_path / "v.gguf"))
    # a blank in front, BOS before it; the better score wins; bytes and unknowns
    assert llama_tokenize(vocab, b"abc", True, False) == [1, 10, 7]
    assert llama_tokenize(vocab, b"b\n", False, False) == [4, 6, 3]
    assert llama_tokenize(vocab, b"z", False, False) == [4, 0]
    assert llama_detokenize(vocab, [10, 7], False) == b"abc"
    assert llama_token_to_piece(vocab, 3, False) == b"\n" and llama_token_to_piece(vocab, 10, False) == b" ab"
    # a special token begins a text anew
    assert llama_tokenize(vocab, b"a</s>a", False, True) == [4, 5, 2, 4, 5]
    without = read_vocab(spm_file(add_space_prefix=(BOOL, False)).write(tmp_path / "w.gguf"))
    assert llama_tokenize(without, b"abc", False, False) == [8, 7]
