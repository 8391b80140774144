"""Prints the checksums in zig/kernels/reference.zig: pseudo-random GGUF blocks of every format, dequantized by the `gguf`
package. Run it where that package is installed (pip install gguf) when a format is added:

    python test/kernels/make_reference_checksums.py
"""

import zlib

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Byte offsets of the float16 fields of a block. Their exponent's top bit is cleared, which keeps them finite.
HALVES = {
    "F16": [0],
    "BF16": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}
BLOCKS = 12


def random_bytes(count: int) -> bytearray:
    state = 1
    out = bytearray()
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(state >> 24)
    return out


for name, halves in HALVES.items():
    kind = GGMLQuantizationType[name]
    size = GGML_QUANT_SIZES[kind][1]
    data = random_bytes(size * BLOCKS)
    for block in range(BLOCKS):
        for offset in halves:
            data[block * size + offset + 1] &= 0xBF
    values = dequantize(np.frombuffer(bytes(data), dtype=np.uint8).reshape(1, -1), kind).astype(np.float32)
    print(f"    .{{ .format = .{name.lower()}, .crc32 = 0x{zlib.crc32(values.tobytes()):08x} }},")
