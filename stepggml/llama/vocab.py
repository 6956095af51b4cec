"""llama_vocab: the tokens of a model, what kind each is, and which of them are special.

Mirrors: struct llama_vocab and llama_vocab::load of llama.cpp/src/llama-vocab.cpp.

Two kinds are known: SPM ("llama"), whose tokens have scores, and BPE ("gpt2"), whose merges have ranks. Tokens are kept
as bytes. Turning text into tokens is in tokenize.py, tokenizer_spm.py and tokenizer_bpe.py.

Leaves out: WordPiece, Unigram and RWKV vocabularies, and the tokens for filling in the middle.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..ggml import (
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGUF_TYPE_BOOL,
    GGUF_TYPE_STRING,
    GGUF_TYPE_UINT32,
    gguf_get_arr_data,
    gguf_get_arr_type,
    gguf_type_name,
)
from .arch import (
    LLM_KV_TOKENIZER_ADD_BOS,
    LLM_KV_TOKENIZER_ADD_EOS,
    LLM_KV_TOKENIZER_ADD_PREFIX,
    LLM_KV_TOKENIZER_BOS_ID,
    LLM_KV_TOKENIZER_EOS_ID,
    LLM_KV_TOKENIZER_EOT_ID,
    LLM_KV_TOKENIZER_LIST,
    LLM_KV_TOKENIZER_MERGES,
    LLM_KV_TOKENIZER_MODEL,
    LLM_KV_TOKENIZER_PAD_ID,
    LLM_KV_TOKENIZER_PRE,
    LLM_KV_TOKENIZER_SCORES,
    LLM_KV_TOKENIZER_SEP_ID,
    LLM_KV_TOKENIZER_TOKEN_TYPE,
    LLM_KV_TOKENIZER_UNK_ID,
    LLM_KV_VOCAB_SIZE,
)
from .unicode import GPT2_REGEX, LLAMA3_REGEX, QWEN2_REGEX, N, P

if TYPE_CHECKING:
    from .loader import llama_model_loader

LLAMA_TOKEN_NULL = -1

LLAMA_VOCAB_TYPE_NONE = 0  # no text, only token ids
LLAMA_VOCAB_TYPE_SPM = 1
LLAMA_VOCAB_TYPE_BPE = 2

VOCAB_TYPE_NAMES = {LLAMA_VOCAB_TYPE_NONE: "no vocab", LLAMA_VOCAB_TYPE_SPM: "SPM", LLAMA_VOCAB_TYPE_BPE: "BPE"}

LLAMA_TOKEN_ATTR_UNDEFINED = 0
LLAMA_TOKEN_ATTR_UNKNOWN = 1 << 0
LLAMA_TOKEN_ATTR_UNUSED = 1 << 1
LLAMA_TOKEN_ATTR_NORMAL = 1 << 2
LLAMA_TOKEN_ATTR_CONTROL = 1 << 3
LLAMA_TOKEN_ATTR_USER_DEFINED = 1 << 4
LLAMA_TOKEN_ATTR_BYTE = 1 << 5
LLAMA_TOKEN_ATTR_LSTRIP = 1 << 7
LLAMA_TOKEN_ATTR_RSTRIP = 1 << 8

LLAMA_TOKEN_TYPE_NORMAL = 1

# tokenizer.ggml.token_type -> attribute; anything else is undefined
ATTR_OF_TOKEN_TYPE = {
    LLAMA_TOKEN_TYPE_NORMAL: LLAMA_TOKEN_ATTR_NORMAL,
    2: LLAMA_TOKEN_ATTR_UNKNOWN,
    3: LLAMA_TOKEN_ATTR_CONTROL,
    4: LLAMA_TOKEN_ATTR_USER_DEFINED,
    5: LLAMA_TOKEN_ATTR_UNUSED,
    6: LLAMA_TOKEN_ATTR_BYTE,
}

# Pre-tokenizers: the names in files, and the expressions that cut the text, one after the other.
DEFAULT_REGEXES = (rf"[{P}$+<=>^~|]+", GPT2_REGEX, rf"[{N}]+", "[0-9][0-9][0-9]")
PRE_TOKENIZERS = {
    "default": DEFAULT_REGEXES,
    "llama3": (LLAMA3_REGEX,),
    "llama-v3": (LLAMA3_REGEX,),
    "llama-bpe": (LLAMA3_REGEX,),
    "qwen2": (QWEN2_REGEX,),
    "deepseek-r1-qwen": (QWEN2_REGEX,),
    "stablelm2": (QWEN2_REGEX,),
    "gpt-2": (GPT2_REGEX,),
    "phi-2": (GPT2_REGEX,),
    "mpt": (GPT2_REGEX,),
    "olmo": (GPT2_REGEX,),
    "jais": (GPT2_REGEX,),
    "gigachat": (GPT2_REGEX,),
    "smollm": (f"[{N}]", GPT2_REGEX),
    "starcoder": (f"[{N}]", GPT2_REGEX),
    "refact": (f"[{N}]", GPT2_REGEX),
    "command-r": (f"[{N}]", GPT2_REGEX),
    "codeshell": (f"[{N}]", GPT2_REGEX),
    "exaone": (f"[{N}]", GPT2_REGEX),
    "minerva-7b": (f"[{N}]", GPT2_REGEX),
}

# A whole word that is a token wins over merges, and the text begins with BOS unless the file says otherwise.
LLAMA3_PRE_TOKENIZERS = ("llama3", "llama-v3", "llama-bpe")

# Tokens that end a generation, known by their text; the first of them that exists ends a turn.
END_OF_TURN_TEXTS = (b"<|eot_id|>", b"<|im_end|>", b"<|end|>", b"<end_of_turn>", b"<|endoftext|>", b"<EOT>")
END_OF_GENERATION_TEXTS = (*END_OF_TURN_TEXTS, b"<|eom_id|>")


class llama_vocab:
    """A vocabulary.

    Fields: type; tokenizer_pre and regex_exprs (BPE); id_to_token (bytes by id), token_to_id, token_scores; token_attrs
    (by id, of the tokens that are not NORMAL and nothing else); bpe_ranks (b"left right" -> rank); special_* ids
    (LLAMA_TOKEN_NULL: none) and flags.
    """

    def __init__(self) -> None:
        self.type = LLAMA_VOCAB_TYPE_SPM
        self.tokenizer_model = ""
        self.tokenizer_pre = ""
        self.regex_exprs: tuple[str, ...] = ()

        self.id_to_token: Sequence[bytes] = []
        self.token_to_id: Mapping[bytes, int] = {}
        self.token_scores: Sequence[float] = []
        self.token_attrs: dict[int, int] = {}
        self.bpe_ranks: Mapping[bytes, int] = {}

        self.special_bos_id = LLAMA_TOKEN_NULL
        self.special_eos_id = LLAMA_TOKEN_NULL
        self.special_eot_id = LLAMA_TOKEN_NULL
        self.special_unk_id = LLAMA_TOKEN_NULL
        self.special_sep_id = LLAMA_TOKEN_NULL
        self.special_pad_id = LLAMA_TOKEN_NULL
        self.special_eog_ids: set[int] = set()

        self.add_space_prefix = False
        self.add_bos = False
        self.add_eos = False
        self.ignore_merges = False

        # ids of tokens that are cut out of a text before anything else, longest text first
        self.cache_special_tokens: list[int] = []

    def n_tokens(self) -> int:
        """How many tokens there are."""
        return len(self.id_to_token)

    def text_to_token(self, text: bytes) -> int:
        """The id of a token, or LLAMA_TOKEN_NULL."""
        return self.token_to_id.get(text, LLAMA_TOKEN_NULL)

    def find_bpe_rank(self, token_left: bytes, token_right: bytes) -> int:
        """The rank of a merge, -1 when the two are never merged. Low ranks go first."""
        # a merge ends its left part at the first blank behind the first character, whatever that is
        if token_left == b"" or token_left.find(b" ", 1) != -1:
            return -1
        return self.bpe_ranks.get(token_left + b" " + token_right, -1)

    def token_get_attr(self, id: int) -> int:
        return self.token_attrs.get(id, LLAMA_TOKEN_ATTR_NORMAL)

    def byte_to_token(self, byte: int) -> int:
        """SPM: the token "<0x0A>" of a byte, or else the token that is the byte; LLAMA_TOKEN_NULL for neither."""
        token = self.text_to_token(b"<0x%02X>" % byte)
        if token != LLAMA_TOKEN_NULL:
            return token
        return self.text_to_token(bytes([byte]))


# ----------------------------------------------------------------------------------------------------------------------
# loading


def load_vocab(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """Fill `vocab` from the keys of the file. C: llama_vocab::load."""
    load_tokenizer_model(ml, vocab)
    if vocab.type == LLAMA_VOCAB_TYPE_NONE:
        load_no_vocab(ml, vocab)
        return
    load_tokens(ml, vocab)
    if vocab.type == LLAMA_VOCAB_TYPE_BPE:
        load_merges(ml, vocab)
        load_pre_tokenizer(ml, vocab)
    load_special_tokens(ml, vocab)
    find_end_tokens(vocab)
    collect_special_tokens(vocab)


def load_tokenizer_model(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """Which kind of tokenizer, and what goes without saying for it."""
    vocab.tokenizer_model = ml.get_key(LLM_KV_TOKENIZER_MODEL, GGUF_TYPE_STRING)
    if vocab.tokenizer_model in ("no_vocab", "none"):
        vocab.type = LLAMA_VOCAB_TYPE_NONE
    elif vocab.tokenizer_model == "llama":
        vocab.type = LLAMA_VOCAB_TYPE_SPM
        vocab.special_bos_id = 1
        vocab.special_eos_id = 2
        vocab.special_unk_id = 0
        vocab.add_space_prefix = True
        vocab.add_bos = True
    elif vocab.tokenizer_model == "gpt2":
        vocab.type = LLAMA_VOCAB_TYPE_BPE
        vocab.special_bos_id = 11
        vocab.special_eos_id = 11
    else:
        raise ml.error(f"unknown tokenizer: '{vocab.tokenizer_model}'", "known are 'gpt2' and 'llama'")


def load_no_vocab(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """Tokens without text, as many as the file says."""
    n_tokens = ml.get_key(LLM_KV_VOCAB_SIZE, GGUF_TYPE_UINT32)
    # stepggml: every token is a row of at least one weight in the file
    if n_tokens < 1 or n_tokens > max(ml.n_elements, 1):
        raise ml.error(f"bad value of key {ml.llm_kv(LLM_KV_VOCAB_SIZE)}: got {n_tokens}")
    vocab.id_to_token = [b""] * n_tokens
    vocab.token_scores = array("f", [0.0]) * n_tokens


def load_tokens(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """The tokens: text, score, type."""
    words = get_strings(ml, LLM_KV_TOKENIZER_LIST, required=True)
    n_tokens = len(words)
    if n_tokens == 0:
        raise ml.error(f"key {LLM_KV_TOKENIZER_LIST} has no tokens")

    # a text that occurs twice means the later token, as in C
    vocab.id_to_token = words
    vocab.token_to_id = index_strings(words, keep_last=True)
    if len(vocab.token_to_id) != n_tokens:
        GGML_LOG_WARN(f"load_vocab: {n_tokens - len(vocab.token_to_id)} tokens have the text of another one\n")

    scores = get_numbers(ml, LLM_KV_TOKENIZER_SCORES, n_tokens)
    vocab.token_scores = array("f", [0.0]) * n_tokens
    if scores is not None:
        vocab.token_scores = scores

    token_types = get_numbers(ml, LLM_KV_TOKENIZER_TOKEN_TYPE, n_tokens)
    if token_types is not None:
        for id, token_type in enumerate(token_types):
            if token_type != LLAMA_TOKEN_TYPE_NORMAL:
                vocab.token_attrs[id] = ATTR_OF_TOKEN_TYPE.get(token_type, LLAMA_TOKEN_ATTR_UNDEFINED)


def load_merges(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """The merges of a BPE vocabulary, best first: "Ġ t" says that Ġ and t become one."""
    merges = get_strings(ml, LLM_KV_TOKENIZER_MERGES, required=True)
    vocab.bpe_ranks = index_strings(merges, keep_last=False)


def load_pre_tokenizer(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """How a text is cut before merging."""
    pre = ml.get_key(LLM_KV_TOKENIZER_PRE, GGUF_TYPE_STRING, required=False)
    if pre is None:
        GGML_LOG_WARN(
            "load_vocab: missing pre-tokenizer type, using 'default': the tokens may not be the model's own\n"
        )
        pre = "default"
    if pre not in PRE_TOKENIZERS:
        raise ml.error(f"unknown pre-tokenizer type: '{pre}'")
    vocab.tokenizer_pre = pre
    vocab.regex_exprs = PRE_TOKENIZERS[pre]
    if pre in LLAMA3_PRE_TOKENIZERS:
        vocab.ignore_merges = True
        vocab.add_bos = True


def load_special_tokens(ml: llama_model_loader, vocab: llama_vocab) -> None:
    """Ids of the special tokens, and whether texts begin and end with one."""
    vocab.special_bos_id = special_id(ml, vocab, LLM_KV_TOKENIZER_BOS_ID, vocab.special_bos_id)
    vocab.special_eos_id = special_id(ml, vocab, LLM_KV_TOKENIZER_EOS_ID, vocab.special_eos_id)
    vocab.special_eot_id = special_id(ml, vocab, LLM_KV_TOKENIZER_EOT_ID, vocab.special_eot_id)
    vocab.special_unk_id = special_id(ml, vocab, LLM_KV_TOKENIZER_UNK_ID, vocab.special_unk_id)
    vocab.special_sep_id = special_id(ml, vocab, LLM_KV_TOKENIZER_SEP_ID, vocab.special_sep_id)
    vocab.special_pad_id = special_id(ml, vocab, LLM_KV_TOKENIZER_PAD_ID, vocab.special_pad_id)

    vocab.add_bos = ml.get_key(LLM_KV_TOKENIZER_ADD_BOS, GGUF_TYPE_BOOL, False, vocab.add_bos)
    vocab.add_eos = ml.get_key(LLM_KV_TOKENIZER_ADD_EOS, GGUF_TYPE_BOOL, False, vocab.add_eos)
    vocab.add_space_prefix = ml.get_key(LLM_KV_TOKENIZER_ADD_PREFIX, GGUF_TYPE_BOOL, False, vocab.add_space_prefix)


def special_id(ml: llama_model_loader, vocab: llama_vocab, kid: str, default: int) -> int:
    """The id under a key; the default when there is none or it is out of range. stepggml: the default must exist."""
    if default >= vocab.n_tokens():
        default = LLAMA_TOKEN_NULL
    id = ml.get_key(kid, GGUF_TYPE_UINT32, required=False, default=default)
    if id >= vocab.n_tokens():
        GGML_LOG_WARN(f"load_vocab: bad special token: '{kid}' = {id}, using default id {default}\n")
        return default
    return id


def find_end_tokens(vocab: llama_vocab) -> None:
    """Which tokens end a generation: those with a known text, EOS, and the end of a turn."""
    for text in END_OF_TURN_TEXTS:
        id = vocab.text_to_token(text)
        if id != LLAMA_TOKEN_NULL and vocab.special_eot_id == LLAMA_TOKEN_NULL:
            vocab.special_eot_id = id

    for text in END_OF_GENERATION_TEXTS:
        id = vocab.text_to_token(text)
        if id != LLAMA_TOKEN_NULL:
            vocab.special_eog_ids.add(id)
            # such a token is a control token even where the file says something else
            if not vocab.token_get_attr(id) & LLAMA_TOKEN_ATTR_CONTROL:
                GGML_LOG_WARN(f"load_vocab: control-looking token: {id:6d} '{text.decode()}' was not control-type\n")
                vocab.token_attrs[id] = LLAMA_TOKEN_ATTR_CONTROL

    for id in (vocab.special_eos_id, vocab.special_eot_id):
        if id != LLAMA_TOKEN_NULL:
            vocab.special_eog_ids.add(id)


def collect_special_tokens(vocab: llama_vocab) -> None:
    """The tokens that are cut out of a text first. Longer texts go first: a shorter one may be part of them."""
    wanted = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN
    by_length = []
    for id, attr in vocab.token_attrs.items():
        if attr & wanted:
            by_length.append((-len(vocab.id_to_token[id]), id))
    by_length.sort()
    for _length, id in by_length:
        vocab.cache_special_tokens.append(id)
    GGML_LOG_INFO(f"load_vocab: special tokens cache size = {len(vocab.cache_special_tokens)}\n")


def get_strings(ml: llama_model_loader, kid: str, required: bool) -> Sequence[bytes]:
    """An array of strings, as bytes."""
    key_id = ml.find_array(kid, required)
    if key_id < 0:
        return []
    type = gguf_get_arr_type(ml.meta, key_id)
    if type != GGUF_TYPE_STRING:
        raise ml.error(f"key {kid} is an array of {gguf_type_name(type)}, expected str")
    return ml.meta.kv[key_id].data_string


def index_strings(strings: Sequence[bytes], keep_last: bool) -> Mapping[bytes, int]:
    """text -> its number in `strings`; of equal texts the number of the last one, or else of the first."""
    # an array that compiled code has read looks its texts up itself, and makes no objects for that
    positions = getattr(strings, "positions", None)
    if positions is not None:
        return positions(keep_last)
    index = {}
    for number, text in enumerate(strings):
        if keep_last or text not in index:
            index[text] = number
    return index


def get_numbers(ml: llama_model_loader, kid: str, n: int) -> memoryview | None:
    """An array with one number per token; None when the file has none."""
    key_id = ml.find_array(kid, required=False)
    if key_id < 0:
        return None
    type = gguf_get_arr_type(ml.meta, key_id)
    if type == GGUF_TYPE_STRING:
        raise ml.error(f"key {kid} is an array of str, expected numbers")
    data = gguf_get_arr_data(ml.meta, key_id)
    # stepggml: C reads as many as there are tokens, whatever the array has
    if len(data) != n:
        raise ml.error(f"key {kid} has wrong array length; expected {n}, got {len(data)}")
    return data


# ----------------------------------------------------------------------------------------------------------------------
# questions


def llama_vocab_n_tokens(vocab: llama_vocab) -> int:
    return vocab.n_tokens()


def llama_vocab_type(vocab: llama_vocab) -> int:
    return vocab.type


def llama_vocab_get_text(vocab: llama_vocab, token: int) -> str:
    """A token as the file spells it."""
    return vocab.id_to_token[token].decode("utf-8", "replace")


def llama_vocab_get_score(vocab: llama_vocab, token: int) -> float:
    return vocab.token_scores[token]


def llama_vocab_get_attr(vocab: llama_vocab, token: int) -> int:
    return vocab.token_get_attr(token)


def llama_vocab_is_eog(vocab: llama_vocab, token: int) -> bool:
    """Whether a token ends the generation."""
    return token in vocab.special_eog_ids


def llama_vocab_is_control(vocab: llama_vocab, token: int) -> bool:
    return bool(vocab.token_get_attr(token) & LLAMA_TOKEN_ATTR_CONTROL)


def llama_vocab_bos(vocab: llama_vocab) -> int:
    return vocab.special_bos_id


def llama_vocab_eos(vocab: llama_vocab) -> int:
    return vocab.special_eos_id


def llama_vocab_get_add_bos(vocab: llama_vocab) -> bool:
    return vocab.add_bos


def llama_vocab_get_add_eos(vocab: llama_vocab) -> bool:
    return vocab.add_eos
