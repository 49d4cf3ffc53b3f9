"""From a checkpoint to a GGUF that llama.cpp runs as `llama`.

The kind `qwen2` is named after the same network, but there a head is as wide as its share of the stream. `llama`
lets heads be wider and takes biases where there are some. It turns neighbours of a head as pairs where we turn
halves, so the rows of queries and keys change places.

The parts of the embedding become one table, shared by input and output. Matrices are stored as Q8_0 (8 bits and a
scale for 32 weights), vectors as float32.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from model import chat
from model.network import Network

NAME = "overnight-tiny"
CONTEXT_TOKENS = 8_192  # Declared; no training text was longer than 700 tokens.
_Q8_0 = gguf.GGMLQuantizationType.Q8_0


@torch.no_grad()
def export(network: Network, vocabulary: Tokenizer, path: Path, *, quantized: bool = True) -> None:
    """Write `path`, whole or not at all."""
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    _describe(writer, network)
    _tokens(writer, vocabulary)
    for name, tensor in _tensors(network):
        array = np.ascontiguousarray(tensor.float().numpy())
        if array.ndim == 1 or not quantized:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, _Q8_0), raw_dtype=_Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _describe(writer: gguf.GGUFWriter, network: Network) -> None:
    shape = network.shape
    writer.add_name(NAME)
    writer.add_description("A small model for five tasks, trained from nothing on generated text")
    writer.add_license("apache-2.0")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_chat_template(chat.TEMPLATE)


def _tokens(writer: gguf.GGUFWriter, vocabulary: Tokenizer) -> None:
    numbers = vocabulary.get_vocab()
    tokens = sorted(numbers, key=numbers.__getitem__)
    special = set(chat.SPECIALS)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    merges = json.loads(vocabulary.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    end = numbers[chat.END]
    writer.add_bos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)


def _tensors(network: Network):
    yield "token_embd.weight", network.embedding(torch.arange(len(network.embedding.code)))
    for number, block in enumerate(network.blocks):
        for name, part in (
            ("attn_norm", block.attention_norm),
            ("attn_q", block.attention.q),
            ("attn_k", block.attention.k),
            ("attn_v", block.attention.v),
            ("attn_output", block.attention.o),
            ("ffn_norm", block.hidden_norm),
            ("ffn_gate", block.gate),
            ("ffn_up", block.up),
            ("ffn_down", block.down),
        ):
            turned = name in ("attn_q", "attn_k")
            for kind in ("weight", "bias"):
                if (tensor := getattr(part, kind, None)) is not None:
                    yield f"blk.{number}.{name}.{kind}", _paired(tensor, network) if turned else tensor
    yield "output_norm.weight", network.norm.weight


def _paired(tensor: torch.Tensor, network: Network) -> torch.Tensor:
    """Rows of each head reordered, so that what is turned together stands side by side."""
    width = network.shape.head_width
    heads = tensor.unflatten(0, (-1, 2, width // 2))
    return heads.transpose(1, 2).flatten(0, 2)
