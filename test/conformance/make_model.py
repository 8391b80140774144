#!/usr/bin/env python3
"""Writes a small random-weight GGUF model, byte for byte the same on every machine.

Not a model that says anything: a stand-in with the structure of a family and the shape of a real
model, thinner or shallower, so that every family and every tensor format is compared with the
reference in seconds. Weights come from the raw output of the PCG64 generator through integer sums
and single IEEE operations, so that neither numpy's version nor the machine's libm changes a bit.

usage: make_model.py NAME OUT.gguf      NAME is SHAPE-DTYPE, such as llama-q4_k
       make_model.py --list             one name a line

Needs numpy and gguf.
"""
import argparse
import dataclasses
import os
import sys
import zlib

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType, TokenType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's structure. Widths in values; `window` is 0 where every layer sees everything."""

    family: str
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_width: int
    rope_base: float
    tied: bool = True
    bias: bool = False
    qk_norm: bool = False
    rope_linear: float = 0.0
    rope_llama3: bool = False
    window: int = 0
    soft_cap: float = 0.0


SHAPES = {
    # One shape for every format: all widths are multiples of 256, as the K formats want.
    "llama": Shape("llama", 3, 256, 768, 4, 2, 64, 1e4, tied=False),
    # Llama 3's lengthened wavelengths, and linear scaling.
    "llama3": Shape("llama", 3, 256, 768, 8, 2, 32, 5e5, rope_llama3=True),
    "llamalinear": Shape("llama", 3, 256, 768, 8, 1, 32, 1e4, rope_linear=4.0),
    # The layers of SmolLM2 135M, Qwen2 0.5B and Qwen3 0.6B, fewer of them.
    "smollm2": Shape("llama", 4, 576, 1536, 9, 3, 64, 1e5),
    "qwen2": Shape("qwen2", 3, 896, 4864, 14, 2, 64, 1e6, bias=True),
    "qwen3": Shape("qwen3", 3, 1024, 3072, 16, 8, 128, 1e6, qk_norm=True),
    # Two whole rounds of Gemma 3's pattern of local and global layers, a window that the text outgrows.
    "gemma3": Shape("gemma3", 12, 256, 768, 4, 1, 128, 1e6, qk_norm=True, rope_linear=8.0, window=96, soft_cap=8.0),
}

ALL_DTYPES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()

MODELS = {
    f"{shape}-{dtype.lower()}": (shape, dtype)
    for shape, dtypes in {
        "llama": ALL_DTYPES,
        "llama3": ["Q8_0"],
        "llamalinear": ["Q8_0"],
        "smollm2": ["F16", "Q4_0", "Q8_0"],
        "qwen2": ["BF16", "Q4_0", "Q8_0"],
        "qwen3": ["F16", "Q4_K", "Q8_0"],
        "gemma3": ["F16", "Q4_K", "Q8_0"],
    }.items()
    for dtype in dtypes
}

CONTEXT_LENGTH = 4096


class Random:
    """A stream of numbers that depends on nothing but its name."""

    def __init__(self, name):
        self.bits = np.random.PCG64(zlib.crc32(name.encode()))

    def bytes(self, count):
        return self.bits.random_raw((count + 7) // 8).astype("<u8").view(np.uint8)[:count]

    def bell(self, count):
        """`count` float32 values of mean 0 and variance 1, nearly normal: sums of four 16-bit integers."""
        parts = self.bits.random_raw(count).astype("<u8").view("<i2").reshape(count, 4)
        total = parts.astype(np.int32).sum(axis=1).astype(np.float32)
        # A uniform 16-bit integer has the variance 2^32 / 12; four of them have 2^32 / 3.
        return (total + np.float32(2.0)) * np.float32(3.0**0.5 / 65536.0)


def float16_bytes(values):
    return values.astype("<f2").view(np.uint8).reshape(len(values), 2)


def random_blocks(random, dtype, rows, columns, deviation):
    """Valid blocks of a format for which `gguf` has no quantizer: random quants and block scales, and a
    float16 scale, different for each block, that gives the values about the standard deviation asked for."""
    block_values, block_bytes = GGML_QUANT_SIZES[dtype]
    count = rows * columns // block_values
    blocks = random.bytes(count * block_bytes).reshape(count, block_bytes).copy()
    # Where the scale lies in a block, where the scale of the minima lies, and the ratio of the two that
    # makes the mean nought; and the values' standard deviation at scale 1 and uniformly random quants.
    scale_at, minimum_at, ratio, unit = {
        GGMLQuantizationType.Q2_K: (80, 82, 1.5, 13.0),
        GGMLQuantizationType.Q3_K: (108, None, 0.0, 43.0),
        GGMLQuantizationType.Q4_K: (0, 2, 7.5, 251.0),
        GGMLQuantizationType.Q5_K: (0, 2, 15.5, 512.0),
        GGMLQuantizationType.Q6_K: (208, None, 0.0, 1370.0),
        GGMLQuantizationType.IQ4_NL: (0, None, 0.0, 70.0),
        GGMLQuantizationType.IQ4_XS: (0, None, 0.0, 1290.0),
    }[dtype]
    scale = (np.float32(deviation / unit) * (np.float32(0.75) + random.bytes(count).astype(np.float32) / 512)).astype(
        np.float32
    )
    if minimum_at is None:  # A sign makes up for tables and integers that are not symmetric.
        scale = np.where(random.bytes(count) < 128, scale, -scale)
    else:
        blocks[:, minimum_at : minimum_at + 2] = float16_bytes(scale * np.float32(ratio))
    blocks[:, scale_at : scale_at + 2] = float16_bytes(scale)
    data = blocks.reshape(rows, columns // block_values * block_bytes)
    found = float(dequantize(data, dtype).std())
    if not 0.8 * deviation < found < 1.25 * deviation:
        raise SystemExit(f"random {dtype.name} blocks have the standard deviation {found}, wanted {deviation}")
    return data


def vocabulary():
    """A SentencePiece vocabulary for English text: the bytes, the printable characters, and pairs of letters."""
    pieces = [("<unk>", 0.0, TokenType.UNKNOWN), ("<s>", 0.0, TokenType.CONTROL), ("</s>", 0.0, TokenType.CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, TokenType.BYTE) for byte in range(256)]
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    pairs = ["\u2581" + letter for letter in letters] + [a + b for a in letters for b in letters]
    singles = ["\u2581"] + [chr(code) for code in range(0x21, 0x7F)]
    pieces += [(piece, -1.0 - i, TokenType.NORMAL) for i, piece in enumerate(pairs + singles)]
    return pieces


def write(name, path):
    shape_name, dtype_name = MODELS[name]
    shape, dtype = SHAPES[shape_name], GGMLQuantizationType[dtype_name]
    writer = GGUFWriter(path, shape.family)
    writer.add_name(f"random {name}")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.rope_linear:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_linear)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.soft_cap:
        writer.add_final_logit_softcapping(shape.soft_cap)
    pieces = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)

    # Each tensor has a stream of its own, so that formats of one shape hold (nearly) the same model.
    def matrix(tensor, rows, columns, gain=1.0):
        random = Random(f"{shape_name}/{tensor}")
        deviation = gain * 0.7 / columns**0.5
        if dtype_name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"):
            data = random_blocks(random, dtype, rows, columns, deviation)
        else:
            values = (random.bell(rows * columns) * np.float32(deviation)).reshape(rows, columns)
            data = values if dtype_name == "F32" else quantize(values, dtype)
        writer.add_tensor(tensor, data, raw_dtype=dtype)

    def vector(tensor, count, around=1.0, spread=0.05):
        values = np.float32(around) + np.float32(spread) * Random(f"{shape_name}/{tensor}").bell(count)
        writer.add_tensor(tensor, values.astype(np.float32))

    # Logits that spread over several units, as a real model's do: a flat distribution would make every choice a toss-up.
    # Queries and keys are enlarged too: flat attention would hide the positions. Embeddings stay small beside what the
    # layers add: else a tied head only says its input again, and nothing in the layers could go wrong visibly.
    embedding_gain = shape.width**-0.5 if shape.family == "gemma3" else 1.0
    matrix("token_embd.weight", len(pieces), shape.width, embedding_gain)
    vector("output_norm.weight", shape.width, 4.0 / embedding_gain if shape.tied else 1.0)
    if not shape.tied:
        matrix("output.weight", len(pieces), shape.width, 4.0)
    if shape.rope_llama3:
        # Llama 3.1's rule with factor 8, low 1, high 4 over 8,192 positions; its float64 steps end in float32.
        wavelength = 2 * np.pi * shape.rope_base ** (np.arange(shape.head_width // 2) / (shape.head_width // 2))
        smooth = np.clip((8192 / wavelength - 1) / 3, 0, 1)
        factors = 1 / ((1 - smooth) / 8 + smooth)
        # Rounded to a few bits, so that no machine's pow can make another file of it.
        writer.add_tensor("rope_freqs.weight", (np.round(factors * 1024) / 1024).astype(np.float32))
    query_width, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", shape.width)
        vector(block + "ffn_norm.weight", shape.width)
        matrix(block + "attn_q.weight", query_width, shape.width, 2.0)
        matrix(block + "attn_k.weight", kv_width, shape.width, 2.0)
        matrix(block + "attn_v.weight", kv_width, shape.width)
        matrix(block + "attn_output.weight", shape.width, query_width)
        if shape.bias:
            vector(block + "attn_q.bias", query_width, 0.0, 0.5)
            vector(block + "attn_k.bias", kv_width, 0.0, 0.5)
            vector(block + "attn_v.bias", kv_width, 0.0, 0.5)
        if shape.qk_norm:
            vector(block + "attn_q_norm.weight", shape.head_width, 1.4)
            vector(block + "attn_k_norm.weight", shape.head_width, 1.4)
        if shape.family == "gemma3":
            vector(block + "post_attention_norm.weight", shape.width, 0.5)
            vector(block + "post_ffw_norm.weight", shape.width, 0.5)
        matrix(block + "ffn_gate.weight", shape.ffn, shape.width)
        matrix(block + "ffn_up.weight", shape.ffn, shape.width)
        matrix(block + "ffn_down.weight", shape.width, shape.ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("name", nargs="?", choices=MODELS)
    parser.add_argument("out", nargs="?")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(MODELS))
        return
    if arguments.out is None:
        parser.error("NAME and OUT.gguf are needed")
    temporary = f"{arguments.out}.{os.getpid()}.part"
    write(arguments.name, temporary)
    os.replace(temporary, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
