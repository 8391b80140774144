#!/usr/bin/env python3
"""Measures how far llama.cpp lies from the reference: the figures the library under test is held to.

Run once by a maintainer, not by the tests; they read what it wrote, fixtures/llama-cpp-figures.json.
Beside each figure stands the SHA-256 of the model file, so that a figure is never compared with one of
another file; the token ids it was measured on are kept in fixtures/tokens.json.

usage: make_llama_figures.py GEMMA.gguf [--only NAME ...] [--positions N]
Needs, in a virtual environment:
  CMAKE_ARGS="-DCMAKE_CXX_FLAGS='-fno-tree-dse -fno-dse'" pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
  pip install gguf==0.19.0
(GCC 12 otherwise drops stores that llama.cpp's AMX tile configuration needs.)
With --positions the figures are printed and not stored.
"""
import argparse
import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time

import llama_cpp
import numpy as np

import make_model
import reference

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = os.path.join(HERE, "fixtures", "tokens.json")
FIGURES = os.path.join(HERE, "fixtures", "llama-cpp-figures.json")
TEXT, LONG_TEXT = "apache-2.0.txt", "gpl-3.txt"
GEMMA_POSITIONS, RANDOM_POSITIONS = 2048, 1024
BATCH = 512
CONTEXT, CHUNKS = 512, 8


class Llama:
    """llama.cpp as it comes: float16 keys and values, batches of 512, two threads."""

    def __init__(self, path, context):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = 2
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, False)
        return list(ids[:count])

    def logits(self, tokens):
        """Yields blocks of logits, (n, vocabulary), for every position of `tokens`, fed in batches."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        for start in range(0, len(tokens), BATCH):
            ids = tokens[start : start + BATCH]
            batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            if llama_cpp.llama_decode(self.context, batch) != 0:
                raise SystemExit("llama_decode failed")
            rows = llama_cpp.llama_get_logits(self.context)
            address = ctypes.cast(rows, ctypes.POINTER(ctypes.c_float))
            yield np.ctypeslib.as_array(address, shape=(len(ids), self.vocabulary))
            llama_cpp.llama_batch_free(batch)

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def file_sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(name):
    with open(os.path.join(HERE, "fixtures", name), encoding="utf-8", newline="") as file:
        return file.read()


def figures(path, positions, kept_tokens, tokens_name):
    llama = Llama(path, 4096)
    tokens = llama.tokenize(read_text(TEXT))[:positions]
    if len(tokens) != positions:
        raise SystemExit(f"{TEXT} has {len(tokens)} tokens for {path}, {positions} are wanted")
    if kept_tokens.setdefault(tokens_name, tokens) != tokens:
        raise SystemExit(f"{path}: its ids are not those kept as {tokens_name}")
    model = reference.Model(path)
    comparison = reference.Comparison(model, tokens, model.hidden(tokens))
    for rows in llama.logits(tokens):
        for start in range(0, len(rows), model.block_rows()):
            comparison.add(rows[start : start + model.block_rows()])
    llama.close()
    result = comparison.result()
    del result["rows_sha256"]
    return {"sha256": file_sha256(path), "text": TEXT, "tokens": tokens_name} | result


def perplexity_figures(path):
    llama = Llama(path, CONTEXT)
    tokens = llama.tokenize(read_text(LONG_TEXT))
    bos = llama_cpp.llama_vocab_bos(llama.vocab)
    losses = []
    for chunk in range(CHUNKS):
        ids = tokens[chunk * CONTEXT : (chunk + 1) * CONTEXT]
        ids[0] = bos
        rows = np.concatenate([block[CONTEXT // 2 :] if len(block) == CONTEXT else block for block in llama.logits(ids)])
        for i in range(CONTEXT // 2, CONTEXT - 1):
            losses.append(-float(reference.log_softmax(rows[i - CONTEXT // 2][None])[0, ids[i + 1]]))
    llama.close()
    own = float(np.exp(np.mean(losses)))
    expected = reference.perplexity(reference.Model(path), tokens, CONTEXT, CHUNKS, bos)
    return {
        "sha256": file_sha256(path),
        "text": LONG_TEXT,
        "context": CONTEXT,
        "chunks": CHUNKS,
        "positions": len(losses),
        "perplexity": own,
        "reference_perplexity": expected["perplexity"],
    }


def processor():
    with open("/proc/cpuinfo") as file:
        fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    found = [flag for flag in wanted if flag in fields["flags"].split()]
    return f"{fields['model name']}, family {fields['cpu family']}, model {fields['model']}, {' '.join(found)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gemma")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--positions", type=int)
    arguments = parser.parse_args()
    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)

    document, kept_tokens = {}, {}
    if os.path.exists(FIGURES) and os.path.exists(TOKENS) and arguments.only:
        with open(FIGURES) as file:
            document = json.load(file)
        with open(TOKENS) as file:
            kept_tokens = json.load(file)
    document["made_with"] = {
        "command": "python make_llama_figures.py gemma-3-270m-q4_k_m.gguf",
        "llama_cpp_python": llama_cpp.__version__,
        "gguf": importlib.metadata.version("gguf"),
        "numpy": np.__version__,
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}, two threads, batches of {BATCH}, float16 keys and values",
    }
    models = document.setdefault("models", {})

    def keep():
        if arguments.positions is None:
            with open(FIGURES, "w") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
            with open(TOKENS, "w") as file:
                file.write(json.dumps(kept_tokens).replace("], ", "],\n") + "\n")

    for name in arguments.only or ["gemma3-270m", "perplexity", *make_model.MODELS]:
        start = time.perf_counter()
        if name == "gemma3-270m":
            result = models[name] = figures(arguments.gemma, arguments.positions or GEMMA_POSITIONS, kept_tokens, "gemma3")
        elif name == "perplexity":
            result = document["perplexity"] = perplexity_figures(arguments.gemma)
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, f"{name}.gguf")
                make_model.write(name, path)
                result = models[name] = figures(path, arguments.positions or RANDOM_POSITIONS, kept_tokens, "random")
        seconds = time.perf_counter() - start
        shown = {k: (round(v, 8) if isinstance(v, float) else v) for k, v in result.items() if k != "sha256"}
        print(f"{name} ({seconds:.1f} s): {json.dumps(shown)}", file=sys.stderr, flush=True)
        keep()


if __name__ == "__main__":
    main()
