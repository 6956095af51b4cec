"""Text to tokens and tokens to text.

Mirrors: llama_vocab::tokenize, tokenizer_st_partition and token_to_piece of llama.cpp/src/llama-vocab.cpp.

Special tokens are cut out of the raw text first; only what lies between them goes to the tokenizer proper. Control
tokens are matched in a text only when the caller asks (parse_special): a user's "<|im_end|>" is six characters of text,
unless the program says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ggml import GGML_ASSERT
from .tokenizer_bpe import llm_tokenizer_bpe_session
from .tokenizer_spm import llama_escape_whitespace, llama_unescape_whitespace, llm_tokenizer_spm_session
from .unicode import unicode_byte_decode
from .vocab import (
    LLAMA_TOKEN_ATTR_BYTE,
    LLAMA_TOKEN_ATTR_CONTROL,
    LLAMA_TOKEN_ATTR_LSTRIP,
    LLAMA_TOKEN_ATTR_NORMAL,
    LLAMA_TOKEN_ATTR_RSTRIP,
    LLAMA_TOKEN_ATTR_UNKNOWN,
    LLAMA_TOKEN_ATTR_USER_DEFINED,
    LLAMA_TOKEN_NULL,
    LLAMA_VOCAB_TYPE_BPE,
    LLAMA_VOCAB_TYPE_SPM,
    llama_vocab,
)

ATTR_SPECIAL = LLAMA_TOKEN_ATTR_UNKNOWN | LLAMA_TOKEN_ATTR_CONTROL

# A piece of a text: bytes still to be tokenized, or the id of a special token.
Fragment = bytes | int


def tokenizer_st_partition(vocab: llama_vocab, raw_text: bytes, parse_special: bool) -> list[Fragment]:
    """Cut the special tokens out of `raw_text`, the longest first."""
    buffer: list[Fragment] = [raw_text]
    for special_id in vocab.cache_special_tokens:
        attr = vocab.token_get_attr(special_id)
        if attr & ATTR_SPECIAL and not parse_special:
            continue
        special_token = vocab.id_to_token[special_id]
        if special_token == b"" or special_token not in raw_text:
            continue

        cut: list[Fragment] = []
        for fragment in buffer:
            if isinstance(fragment, int):
                cut.append(fragment)
            else:
                cut_fragment(fragment, special_id, special_token, attr, cut)
        buffer = cut
    return buffer


def cut_fragment(fragment: bytes, special_id: int, special_token: bytes, attr: int, cut: list[Fragment]) -> None:
    """Append to `cut` one fragment with every occurrence of one special token replaced by its id."""
    parts = fragment.split(special_token)
    last = len(parts) - 1
    for i, part in enumerate(parts):
        # some tokens swallow the white space beside them
        if i > 0 and attr & LLAMA_TOKEN_ATTR_RSTRIP:
            part = part.lstrip()
        if i < last and attr & LLAMA_TOKEN_ATTR_LSTRIP:
            part = part.rstrip()
        if part != b"":
            cut.append(part)
        if i < last:
            cut.append(special_id)


def llama_tokenize(vocab: llama_vocab, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
    """Token ids of `text`. add_special: with BOS and EOS, if the model wants them.

    C: llama_tokenize, which fills an array of the caller's.
    """
    fragments: list[Fragment] = []
    if text != b"":
        fragments = tokenizer_st_partition(vocab, text, parse_special)

    output: list[int] = []
    if add_special and vocab.add_bos and vocab.special_bos_id != LLAMA_TOKEN_NULL:
        output.append(vocab.special_bos_id)
    if vocab.type == LLAMA_VOCAB_TYPE_SPM:
        tokenize_spm(vocab, fragments, output)
    elif vocab.type == LLAMA_VOCAB_TYPE_BPE:
        tokenize_bpe(vocab, fragments, output)
    else:
        GGML_ASSERT(text == b"", "this model has no vocabulary: give token ids instead of text")
    if add_special and vocab.add_eos and vocab.special_eos_id != LLAMA_TOKEN_NULL:
        output.append(vocab.special_eos_id)
    return output


def tokenize_spm(vocab: llama_vocab, fragments: list[Fragment], output: list[int]) -> None:
    """Each text between special tokens by itself; the first, and each after a special token, with a blank before."""
    is_prev_special = True
    for fragment in fragments:
        if isinstance(fragment, int):
            output.append(fragment)
            is_prev_special = True
            continue
        text = fragment
        if vocab.add_space_prefix and is_prev_special:
            text = b" " + text
        text = llama_escape_whitespace(text)
        session = llm_tokenizer_spm_session(vocab)
        session.tokenize(text, output)
        is_prev_special = False


def tokenize_bpe(vocab: llama_vocab, fragments: list[Fragment], output: list[int]) -> None:
    """Each text between special tokens by itself. Bytes that are not UTF-8 count as U+FFFD."""
    session = llm_tokenizer_bpe_session(vocab)
    for fragment in fragments:
        if isinstance(fragment, int):
            output.append(fragment)
            continue
        text = fragment.decode("utf-8", "replace")
        session.tokenize(text, output)


def llama_token_to_piece(vocab: llama_vocab, token: int, special: bool) -> bytes:
    """The bytes a token stands for; may be part of a character. Control tokens are empty unless `special`."""
    GGML_ASSERT(0 <= token < vocab.n_tokens(), "no such token", got=token)
    attr = vocab.token_get_attr(token)
    token_text = vocab.id_to_token[token]
    if attr & ATTR_SPECIAL and not special:
        return b""
    if attr & (ATTR_SPECIAL | LLAMA_TOKEN_ATTR_USER_DEFINED):
        return token_text
    if vocab.type == LLAMA_VOCAB_TYPE_BPE and attr & LLAMA_TOKEN_ATTR_NORMAL:
        return unicode_byte_decode(token_text.decode("utf-8", "replace"))
    if vocab.type == LLAMA_VOCAB_TYPE_SPM and attr & LLAMA_TOKEN_ATTR_NORMAL:
        return llama_unescape_whitespace(token_text)
    if vocab.type == LLAMA_VOCAB_TYPE_SPM and attr & LLAMA_TOKEN_ATTR_BYTE:
        return token_to_byte(token_text)
    return b""


def token_to_byte(token_text: bytes) -> bytes:
    """The byte of a token such as "<0x0A>". A token that only claims to be of that kind has none."""
    try:
        return bytes([int(token_text[3:5], 16)])
    except ValueError:
        return b""


def llama_detokenize(vocab: llama_vocab, tokens: Sequence[int], special: bool) -> bytes:
    """The text of several tokens. SPM: without the blank that tokenizing put before the first word."""
    text = b""
    remove_space = vocab.add_space_prefix
    for token in tokens:
        piece = llama_token_to_piece(vocab, token, special)
        if remove_space and piece != b"":
            piece = piece.removeprefix(b" ")
            remove_space = False
        text += piece
    return text
