#!/usr/bin/env python3
"""Writes a GGUF model with the shape of a real one, random weights, and a real vocabulary.

How fast a model runs depends on its shape and formats, not on what its weights say. Matrices are float16, the
embedding too, and `tinyai quantize` makes the other formats of them; norms and biases are float32.

usage: make_model.py SHAPE VOCABULARY.gguf OUT.gguf

Needs numpy and gguf.
"""
import argparse
import dataclasses

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's structure, widths in values. Input and output share the embedding in all of them."""

    family: str
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_width: int
    rope_base: float
    bias: bool = False


SHAPES = {
    "smollm2-135m": Shape("llama", 30, 576, 1536, 9, 3, 64, 1e5),
    "qwen2-0.5b": Shape("qwen2", 24, 896, 4864, 14, 2, 64, 1e6, bias=True),
    "llama-1b": Shape("llama", 16, 2048, 8192, 32, 8, 64, 5e5),
}
CONTEXT_LENGTH = 8192


def copy_vocabulary(writer, path):
    """Copies all that says how to tokenize; gives the number of tokens."""
    for key, field in GGUFReader(path).fields.items():
        if not key.startswith("tokenizer."):
            continue
        value = field.contents()
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_array(key, value)
            if key == "tokenizer.ggml.tokens":
                count = len(value)
        else:
            writer.add_key_value(key, value, field.types[0])
    return count


def write(shape, vocabulary, out):
    writer = GGUFWriter(out, shape.family)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = copy_vocabulary(writer, vocabulary)
    writer.add_vocab_size(tokens)
    random = np.random.default_rng(20)

    def matrix(name, rows, columns):
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.7 / columns**0.5)
        writer.add_tensor(name, values.astype(np.float16))

    def vector(name, count, around):
        values = around + 0.05 * random.standard_normal(count)
        writer.add_tensor(name, values.astype(np.float32))

    query_width, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    matrix("token_embd.weight", tokens, shape.width)
    vector("output_norm.weight", shape.width, 1)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", shape.width, 1)
        for name, rows in (("attn_q", query_width), ("attn_k", kv_width), ("attn_v", kv_width)):
            matrix(f"{block}{name}.weight", rows, shape.width)
            if shape.bias:
                vector(f"{block}{name}.bias", rows, 0)
        matrix(block + "attn_output.weight", shape.width, query_width)
        vector(block + "ffn_norm.weight", shape.width, 1)
        matrix(block + "ffn_gate.weight", shape.ffn, shape.width)
        matrix(block + "ffn_up.weight", shape.ffn, shape.width)
        matrix(block + "ffn_down.weight", shape.width, shape.ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("vocabulary")
    parser.add_argument("out")
    arguments = parser.parse_args()
    write(SHAPES[arguments.shape], arguments.vocabulary, arguments.out)


if __name__ == "__main__":
    main()
