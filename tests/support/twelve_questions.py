"""The twelve questions that every learner asks, what to type, and the models they are asked of.

Each question is asked at a stop, which `setup` reaches, and answered by at most two commands. make_twelve_questions.py
writes docs/twelve-questions.md from this; test_twelve_questions.py checks the answers. Words in braces depend on the
model: {head}, the last head up to 5; {q4_0}, a file with the same weights quantized.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from debugger_console import Conversation
from gpt2_files import tiny_model

from stepggml.ggml import GGML_TYPE_Q4_0, ggml_quantize_chunk
from stepggml.runner import BUILT_IN_MODEL, open_program

FTYPE_Q4_0 = 2002  # version 2 of the quantized formats, all matrices Q4_0


@dataclass(frozen=True)
class Question:
    """number: as in the list. asked_at: the stop, in words. setup: commands that reach it. says: what the answer is."""

    number: int
    text: str
    asked_at: str
    setup: tuple[str, ...]
    commands: tuple[str, ...]
    says: str
    model: str = ""  # "q4_0": asked of the quantized file


QUESTIONS = (
    Question(
        1,
        "What are the values, `ne` and `nb` of `KQ_soft_max` of layer 0, right after it is computed?",
        "the first line of `gpt2_model_load`",
        ("start",),
        ("advance name:/^KQ_soft_max$/", "p KQ_soft_max[:,:,0]"),
        "The breakpoint knows the builder's variable. The card has shape, strides and place; rows add up to 1.",
    ),
    Question(
        2,
        "After the run, why is the content of `embd` garbage? Which node overwrote it, and by which rule?",
        "the end of the run",
        ("start", "c"),
        ("p embd", "why alloc embd"),
        "`p` shows what `embd` was, and says whose bytes these are now. `why alloc` replays the allocator: after its "
        "last reader the block was free, and the next node that needed one got it.",
    ),
    Question(
        3,
        "How full is the pool of the weights' context, which objects lie at which addresses, and would one more tensor "
        "fit, without trying it?",
        "the first line of `gpt2_graph`",
        ("tbreak gpt2_graph", "run"),
        ("info context", "info objects ctx_w"),
        "A tensor without data takes 32 + 336 bytes; `room for` counts how many more fit.",
    ),
    Question(
        4,
        "`K` after `permute(0, 2, 1, 3)`: its `ne` and `nb`, the address of `K[3,1,{head}]` with its arithmetic, and "
        "its value?",
        "node 24, which reads it",
        ("advance node:24",),
        ("addr K[3,1,{head}]", "info node K"),
        "A permuted view changes `ne` and `nb`, and no byte.",
    ),
    Question(
        5,
        "Which source line made node 24, for which layer?",
        "the logits",
        ("token",),
        ("info node 24",),
        "Every node remembers the stack that built it.",
    ),
    Question(
        6,
        "Why does node_7 share memory with node_6, and node_3 not with node_2?",
        "the logits",
        ("token",),
        ("why alloc node_7", "why alloc node_3"),
        "An op that can work in place takes over its operand's memory if no other node reads it.",
    ),
    Question(
        7,
        "One element of the product with `c_attn`, derived by hand, with F16 weights and with Q4_0 weights, with the "
        "operands really used?",
        "the logits",
        ("token",),
        ("why node_6[5,2]",),
        "For F16 weights ggml rounds the activations to F16 first. The total is compared with what the kernel wrote.",
    ),
    Question(
        7,
        "The same with Q4_0 weights.",
        "the logits, on a Q4_0 file",
        ("token",),
        ("why node_6[5,2]",),
        "For Q4_0 the activations are quantized to Q8_0, and blocks of 32 integers are multiplied.",
        model="q4_0",
    ),
    Question(
        8,
        "A NaN is in `h3/mlp/c_fc/w`. Which node is the first that has one, and what were its inputs?",
        "node 2, and the NaN has just been planted",
        ("si 3", "patch model/h3/mlp/c_fc/w[5,7] = nan"),
        ("catch nan", "c"),
        "The stop is at the node, and its card lists the inputs.",
    ),
    Question(
        9,
        "From node 40 back to node 30, with its inputs as they were?",
        "node 40",
        ("advance node:40",),
        ("goto 30", "p node_30.src[0]"),
        "Going back restores bytes; `p` reads the operand that is in memory again.",
    ),
    Question(
        10,
        "Head 3 of layer 0 zeroed: the logits before and after, side by side?",
        "the logits",
        ("token",),
        ("what-if KQ_soft_max-0[:,:,3] = 0",),
        "The evaluation is computed again from there, and put back.",
    ),
    Question(
        11,
        "Which bytes of the KV cache did the token at n_past 7 write in layer 1, and where is V of token 3?",
        "the logits of the third evaluation",
        ("token 3",),
        ("info kv 1 7", "info kv 1 3"),
        "Keys and values of a layer lie token after token.",
    ),
    Question(
        12,
        "F16 against Q4_0: at which node does the relative error first pass 1 %, and is it local or inherited?",
        "the logits",
        ("token",),
        ("diff model {q4_0}",),
        "Local: the quantized run makes something else of the same inputs. Inherited: it only passes on what it got.",
    ),
)


@dataclass(frozen=True)
class Setting:
    """A model to ask of, and its quantized twin."""

    model: Path
    q4_0: Path
    tokens: tuple[int, ...]
    n_threads: int = 2

    def words(self, talk: Conversation) -> dict[str, object]:
        """What the words in braces stand for."""
        n_head = getattr(getattr(talk.session.model, "hparams", None), "n_head", 0)
        return {"head": min(5, n_head - 1), "q4_0": self.q4_0.name}

    def ask(self, question: Question) -> tuple[Conversation, str]:
        """Reach the stop and type the commands; the conversation, and what the commands showed. The process stands in
        the folder of q4_0.
        """
        talk = self.talk(self.q4_0 if question.model == "q4_0" else self.model)
        try:
            talk.good(*question.setup)
            words = self.words(talk)
            return talk, talk.good(*[command.format(**words) for command in question.commands])
        except BaseException:
            talk.close()
            raise

    def talk(self, path: Path) -> Conversation:
        """A conversation that has not begun."""
        return Conversation(model=str(path), tokens=list(self.tokens), n_threads=self.n_threads, n_ctx=256)


def built_in(folder: Path) -> Setting:
    """The built-in model; the prompt is "Old Mr. Crow said"."""
    q4_0 = folder / "tales-q4_0.bin"
    quantize(Path(BUILT_IN_MODEL), q4_0)
    return Setting(Path(BUILT_IN_MODEL), q4_0, (46, 292, 358, 13, 620, 401))


def large(folder: Path, path: str) -> Setting:
    """A 117M-sized model: the file `path`, or one with random weights."""
    model = Path(path)
    if path == "random":
        model = folder / "random-117M-f16.bin"
        sizes = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
        model.write_bytes(tiny_model(**sizes, ftype=1).to_bytes())
    q4_0 = folder / "117M-q4_0.bin"
    quantize(model, q4_0)
    return Setting(model, q4_0, (464, 68, 86, 831, 12, 7))


def quantize(source: Path, target: Path) -> None:
    """Write the model with its F16 matrices as Q4_0."""
    data = source.read_bytes()
    info = open_program(str(source)).info()
    begin = header_of(info.tensors[0], data)
    with target.open("wb") as file:
        file.write(data[:24] + struct.pack("<i", FTYPE_Q4_0) + data[28:begin])
        for row in info.tensors:
            raw = data[row["offset"] : row["offset"] + row["bytes"]]
            ne = row["ne"]
            name = row["name"].encode()
            ttype = 0
            if row["type"] == "f16":
                ttype = int(GGML_TYPE_Q4_0)
                values = np.frombuffer(raw, np.float16).astype(np.float32)
                blocks = np.zeros(values.size // 32 * 18, np.uint8)
                ggml_quantize_chunk(GGML_TYPE_Q4_0, values, blocks, 0, values.size // ne[0], ne[0])
                raw = blocks.tobytes()
            file.write(struct.pack(f"<3i{len(ne)}i", len(ne), len(name), ttype, *ne) + name + raw)


def header_of(row: dict, data: bytes) -> int:
    """Where the header of the first tensor begins: its numbers, then its name, end where its data begin."""
    name = row["name"].encode()
    end = row["offset"]
    for n_dims in (1, 2, 3, 4):
        begin = end - len(name) - 4 * (3 + n_dims)
        if struct.unpack_from("<2i", data, begin) == (n_dims, len(name)):
            return begin
    raise ValueError("no header in front of the first tensor")
