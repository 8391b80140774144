#!/usr/bin/env python3
"""Measures llama.cpp on one model as long as it is asked to: a question a line on stdin, an answer a line on stdout.

    llama_worker.py MODEL.gguf --threads N --depth N
      {"do": "prompt", "tokens": 512}                    tokens/s of reading a prompt
      {"do": "generate", "tokens": 64, "depth": 0}       tokens/s after that many positions, 0 or the --depth
      {"do": "batch", "sequences": 4, "tokens": 24}      tokens/s of all sequences together
      each with "flash": "on" or "off", for with or without flash attention, is answered by {"rate": X}
      {"do": "about"} is answered by {} once all is loaded

    llama_worker.py MODEL.gguf --threads N --first TEXT --tokens N --context N
      writes the first token's text as soon as it is there, generates the rest, then leaves one JSON line on stderr.

As in llama-bench, sampling and tokenizing are not in the tokens/s: what is decoded is fixed beforehand.
"""
import argparse
import ctypes
import json
import os
import sys
import time

import llama_cpp as ll

IMPORTED_AT = time.time()
MICRO_BATCH = 512
SEQUENCES_MAX = 16
BATCH_POSITIONS = 64


def load(path):
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    return model


def open_context(model, positions, threads, flash, sequences=1):
    parameters = ll.llama_context_default_params()
    parameters.n_ctx = positions * sequences
    parameters.n_seq_max = sequences
    parameters.n_batch = parameters.n_ubatch = MICRO_BATCH
    parameters.n_threads = parameters.n_threads_batch = threads
    # Local layers keep only their window, as llama-bench has it: the default keeps and masks everything, which is slower.
    parameters.swa_full = False
    if flash is not None:
        on, off = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED, ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.flash_attn_type = on if flash else off
    context = ll.llama_init_from_model(model, parameters)
    if not context:
        raise SystemExit("llama.cpp cannot make a context")
    return context


def decode(context, tokens):
    ids = (ll.llama_token * len(tokens))(*tokens)
    if ll.llama_decode(context, ll.llama_batch_get_one(ids, len(tokens))) != 0:
        raise SystemExit("llama_decode failed")


class Bench:
    """One setting of flash attention: a context for one sequence, and one for many."""

    def __init__(self, model, threads, depth, flash):
        self.vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
        self.single = open_context(model, depth + 2 * MICRO_BATCH, threads, flash)
        self.many = open_context(model, BATCH_POSITIONS, threads, flash, SEQUENCES_MAX)
        self.batch = ll.llama_batch_init(SEQUENCES_MAX, 0, 1)
        self.deep = {}

    def tokens(self, count, step=7919):
        return [(step * i + 17) % self.vocabulary for i in range(count)]

    def read(self, count):
        """Puts `count` tokens into the emptied cache."""
        ll.llama_memory_clear(ll.llama_get_memory(self.single), True)
        tokens = self.tokens(count)
        for start in range(0, count, MICRO_BATCH):
            decode(self.single, tokens[start : start + MICRO_BATCH])
        ll.llama_synchronize(self.single)

    def go_to(self, depth):
        """Reads up to `depth` the first time; after that, brings back what the cache then held."""
        if depth not in self.deep:
            self.read(depth)
            size = ll.llama_state_seq_get_size(self.single, 0)
            state = (ctypes.c_uint8 * size)()
            self.deep[depth] = (state, ll.llama_state_seq_get_data(self.single, state, size, 0))
            return
        state, size = self.deep[depth]
        ll.llama_memory_clear(ll.llama_get_memory(self.single), True)
        if ll.llama_state_seq_set_data(self.single, state, size, 0) == 0:
            raise SystemExit("llama.cpp does not take its own state back")

    def prompt(self, tokens):
        start = time.perf_counter()
        self.read(tokens)
        return tokens / (time.perf_counter() - start)

    def generate(self, tokens, depth):
        self.go_to(max(depth, 1))
        ids = self.tokens(tokens + 1, 104729)
        # One step warms what restoring the state has pushed out of the caches.
        decode(self.single, ids[:1])
        ll.llama_synchronize(self.single)
        start = time.perf_counter()
        for token in ids[1:]:
            decode(self.single, [token])
            ll.llama_synchronize(self.single)
        return tokens / (time.perf_counter() - start)

    def step(self, position, sequences):
        batch = self.batch
        batch.n_tokens = sequences
        for i in range(sequences):
            batch.token[i] = (position * 104729 + i * 7919 + 17) % self.vocabulary
            batch.pos[i], batch.logits[i] = position, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, i
        if ll.llama_decode(self.many, batch) != 0:
            raise SystemExit("llama_decode failed")
        ll.llama_synchronize(self.many)

    def run_batch(self, sequences, tokens):
        ll.llama_memory_clear(ll.llama_get_memory(self.many), True)
        self.step(0, sequences)
        start = time.perf_counter()
        for position in range(1, tokens + 1):
            self.step(position, sequences)
        return sequences * tokens / (time.perf_counter() - start)


def serve(arguments):
    model = load(arguments.model)
    benches = {name: Bench(model, arguments.threads, arguments.depth, name == "on") for name in ("on", "off")}
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("do")
        if what == "about":
            print("{}", flush=True)
            continue
        bench = benches[asked.pop("flash")]
        work = {"prompt": Bench.prompt, "generate": Bench.generate, "batch": Bench.run_batch}[what]
        print(json.dumps({"rate": work(bench, **asked)}), flush=True)


def peak_bytes():
    """The most memory that was resident, of this program alone; what getrusage says begins with its parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def first_token(arguments):
    model = load(arguments.model)
    vocabulary = ll.llama_model_get_vocab(model)
    context = open_context(model, arguments.context, arguments.threads, None)
    text = arguments.first.encode()
    ids = (ll.llama_token * (len(text) + 8))()
    count = ll.llama_tokenize(vocabulary, text, len(text), ids, len(ids), True, False)
    greedy = ll.llama_sampler_init_greedy()
    piece = ctypes.create_string_buffer(256)
    tokens = ids[:count]
    for generated in range(arguments.tokens):
        decode(context, tokens)
        token = ll.llama_sampler_sample(greedy, context, -1)
        length = ll.llama_token_to_piece(vocabulary, token, piece, len(piece), 0, True)
        os.write(1, piece.raw[: max(length, 0)] + b"\n")
        tokens = [token]
    left = {"prompt_tokens": count, "peak_bytes": peak_bytes(), "runtime_ready_ms": IMPORTED_AT * 1000}
    print(json.dumps(left), file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--first")
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--context", type=int, default=2048)
    arguments = parser.parse_args()
    quiet = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, None)
    if arguments.first is None:
        serve(arguments)
    else:
        first_token(arguments)


if __name__ == "__main__":
    main()
