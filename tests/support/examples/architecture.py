"""An example architecture, "bigram": the next token depends on the last one alone."""

from __future__ import annotations

from ...ggml import ggml_build_forward_expand, ggml_cgraph, ggml_get_rows, ggml_mul_mat
from ..arch import LLM_TENSOR_OUTPUT, LLM_TENSOR_OUTPUT_NORM, LLM_TENSOR_TOKEN_EMBD, Architecture, tn
from ..llm_build import LLM_NORM_RMS, llm_build_inp_embd, llm_build_norm
from ..llm_build_context import llm_build_context
from ..loader import llama_model_loader
from ..model import llama_model


def load_hparams(ml: llama_model_loader, model: llama_model) -> None:
    model.hparams.f_norm_rms_eps = 1e-5
    model.type_name = "2B"


def load_tensors(model: llama_model, create_tensor) -> None:
    n_embd = model.hparams.n_embd
    n_vocab = model.vocab.n_tokens()
    model.tok_embd = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), [n_embd, n_vocab])
    model.output_norm = create_tensor(tn(LLM_TENSOR_OUTPUT_NORM, "weight"), [n_embd])
    model.output = create_tensor(tn(LLM_TENSOR_OUTPUT, "weight"), [n_embd, n_vocab])


def build_bigram(llm: llm_build_context) -> ggml_cgraph:
    gf = llm.new_graph()
    cur = llm_build_inp_embd(llm, llm.model.tok_embd)  # ne = [n_embd, n_tokens]
    inp_out_ids = llm.build_inp_out_ids()
    cur = ggml_get_rows(llm.ctx0, cur, inp_out_ids)  # ne = [n_embd, n_outputs]
    cur = llm_build_norm(llm, cur, llm.model.output_norm, None, LLM_NORM_RMS, -1)  # ne = [n_embd, n_outputs]
    llm.cb(cur, "result_norm", -1)
    cur = ggml_mul_mat(llm.ctx0, llm.model.output, cur)  # ne = [n_vocab, n_outputs]
    llm.cb(cur, "result_output", -1)
    ggml_build_forward_expand(gf, cur)
    return gf


ARCHITECTURE = Architecture(
    name="bigram", load_hparams=load_hparams, load_tensors=load_tensors, build=build_bigram, rope_type=None
)
