#!/usr/bin/env python3
"""Measures llama.cpp's quantization errors on made-up values: the figures that the encoder is held to.

Run once by a maintainer, not by the tests; they read what it wrote, fixtures/llama-cpp-errors.json. The values are those of
errors.test.ts: both make them by the same exact arithmetic.

usage: make_llama_errors.py
Needs llama-cpp-python 0.3.36, gguf 0.19.0 and numpy.
"""
import ctypes
import importlib.metadata
import json
import os

import gguf
import llama_cpp
import numpy as np
from gguf.quants import dequantize

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS, COLUMNS = 32, 256
FORMATS = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()


class Draws:
    """A linear congruential generator of 32 bits."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return self.state / 2**32

    def bell(self):
        """About normal: four uniform values."""
        return self.uniform() + self.uniform() + self.uniform() + self.uniform() - 2


def cube(value):
    """As products, which are the same everywhere."""
    return value * value * value


KINDS = {
    "bell": lambda draws, index: draws.bell() * 0.03125,
    "long tails": lambda draws, index: cube(draws.bell()),
    "above zero": lambda draws, index: draws.bell() * 0.03125 + 0.0625,
    "below zero": lambda draws, index: -abs(draws.bell()),
    "one in eight": lambda draws, index: draws.bell() if draws.uniform() < 0.125 else 0.0,
    "runs of different sizes": lambda draws, index: draws.bell() * 2.0 ** (index // 32 % 7 - 3),
}


def values_of(kind):
    draws = Draws(7)
    values = [KINDS[kind](draws, index) for index in range(ROWS * COLUMNS)]
    return np.array(values, dtype=np.float64).astype(np.float32)


def errors(library, name, values):
    """The sum of squared errors, and the same with each weighted by 1 + x² / mean x²."""
    kind = gguf.GGMLQuantizationType[name]
    columns, size = gguf.GGML_QUANT_SIZES[kind]
    encoded = np.zeros(values.size // columns * size, dtype=np.uint8)
    address = lambda array: array.ctypes.data_as(ctypes.c_void_p)
    arguments = (ctypes.c_int64(0), ctypes.c_int64(ROWS), ctypes.c_int64(COLUMNS), None)
    library.ggml_quantize_chunk(kind.value, address(values), address(encoded), *arguments)
    wanted = values.astype(np.float64)
    squares = (dequantize(encoded.reshape(1, -1), kind).astype(np.float64).ravel() - wanted) ** 2
    weights = 1 + wanted**2 / np.mean(wanted**2)
    return [float(squares.sum()), float((squares * weights).sum())]


def main():
    library = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    kinds = {kind: values_of(kind) for kind in KINDS}
    made = {
        "made_with": {
            name: importlib.metadata.version(name.replace("_", "-")) for name in ("llama_cpp_python", "gguf", "numpy")
        },
        "errors": {
            name: {kind: errors(library, name, values) for kind, values in kinds.items()} for name in FORMATS
        },
    }
    with open(os.path.join(HERE, "fixtures", "llama-cpp-errors.json"), "w", encoding="utf-8") as file:
        json.dump(made, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
