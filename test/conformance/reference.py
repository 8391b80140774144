#!/usr/bin/env python3
"""The independent reference of the conformance tests: a plain forward pass in numpy.

It reads a GGUF file with the `gguf` package, dequantizes every weight to float32 and computes the
model as its papers describe it: matrix products in float32, norms and softmax sums in float64, no
cache, no quantized activations, nothing fused. It covers the families gemma3, llama, qwen2 and
qwen3. It shares no code with the library under test and is not fast: 2,048 positions of a
270-million-parameter model take about half a minute on two cores.

Commands (each prints one JSON document on stdout):
  reference.py compare MODEL.gguf TOKENS.json ROWS... [--cache DIR]
      Compares rows of logits with the reference's, and prints a list with a result for each ROWS.
      TOKENS.json is a list of ids; ROWS holds, for every position in order, one row of
      vocabulary-size little-endian float32 logits, and may be a named pipe: each is read once, one
      after the other, from front to back, so 2 GB of rows need no disk and no memory.
  reference.py greedy MODEL.gguf TOKENS.json... --prompt N... [--cache DIR]
      Feeds each list of tokens and says, for each token from index N on, what the reference would
      have chosen in its place and by how much it prefers that to its second choice.
  reference.py perplexity MODEL.gguf TOKENS.json --context N --chunks M [--bos ID]
      Perplexity over the second half of each chunk; the first token of each is replaced by ID.

Needs numpy and gguf; requirements.txt pins the versions the stored figures were made with.
"""
import argparse
import functools
import hashlib
import json
import math
import os
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

FAMILIES = ("gemma3", "llama", "qwen2", "qwen3")


class Model:
    """One model file: its hyperparameters and its weights as float32 matrices, loaded on first use."""

    def __init__(self, path):
        self.path = path
        self.reader = GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.family = self.key("general.architecture", scoped=False)
        if self.family not in FAMILIES:
            raise SystemExit(f"{path}: family {self.family} is none of {', '.join(FAMILIES)}")

        self.width = self.key("embedding_length")
        self.layer_count = self.key("block_count")
        self.head_count = self.key("attention.head_count")
        self.kv_head_count = self.key("attention.head_count_kv", self.head_count)
        self.head_width = self.key("attention.key_length", self.width // self.head_count)
        self.rope_width = self.key("rope.dimension_count", self.head_width)
        self.epsilon = self.key("attention.layer_norm_rms_epsilon")
        self.rope_base = self.key("rope.freq_base", 10_000.0)
        self.rope_scale = 1.0
        scaling = self.key("rope.scaling.type", "linear")
        if scaling == "linear":
            factor = self.key("rope.scaling.factor", self.key("rope.scale_linear", 0.0))
            self.rope_scale = 1.0 / factor if factor else 1.0
        elif scaling != "none":
            raise SystemExit(f"{path}: rope.scaling.type {scaling} is not implemented here")
        self.attention_soft_cap = self.key("attn_logit_softcapping", 0.0)
        self.final_soft_cap = self.key("final_logit_softcapping", 0.0)

        # Gemma 3 alternates five layers that see a sliding window with one that sees everything. Its
        # files name the window; the pattern and the local layers' rotary base are the family's.
        self.window = self.key("attention.sliding_window", 0) if self.family == "gemma3" else 0
        self.window_pattern = self.key("attention.sliding_window_pattern", 6)
        self.local_rope_base = self.key("rope.freq_base_swa", 10_000.0)

        self.vocabulary = int(self.tensors["token_embd.weight"].shape[1])

    def key(self, name, fallback=None, scoped=True):
        field = self.reader.get_field(f"{self.family}.{name}" if scoped else name)
        if field is not None:
            return field.contents()
        if fallback is None:
            raise SystemExit(f"{self.path}: metadata key {name} is missing")
        return fallback

    @functools.lru_cache(maxsize=None)
    def weight(self, name):
        """The tensor as float32, of shape (rows, columns) or (n,); None if the file has none of that name. Kept once
        made: a model of 270 million parameters takes 1.1 GB here."""
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        return values.reshape([int(n) for n in reversed(tensor.shape)])

    @property
    def head(self):
        """The output head of shape (vocabulary, width); tied to the embedding when the file has none."""
        return self.weight("output.weight" if "output.weight" in self.tensors else "token_embd.weight")

    # ---- the layers ----------------------------------------------------------------------------------

    def is_local(self, layer):
        if self.window == 0:
            return False
        if isinstance(self.window_pattern, (list, tuple)):
            return bool(self.window_pattern[layer])
        return layer % self.window_pattern < self.window_pattern - 1

    def norm(self, x, weight):
        """Root-mean-square normalisation over the last axis. Gemma's files store weight + 1 already."""
        x64 = x.astype(np.float64)
        scale = 1.0 / np.sqrt(np.mean(x64 * x64, axis=-1, keepdims=True) + self.epsilon)
        return (x64 * scale * weight).astype(np.float32)

    def rotate(self, x, layer):
        """Rotary positions on x of shape (positions, heads, head width), row i being position i."""
        half = self.rope_width // 2
        local = self.is_local(layer)
        base = self.local_rope_base if local else self.rope_base
        scale = 1.0 if local else self.rope_scale
        frequency = float(base) ** (-np.arange(half, dtype=np.float64) / half) * scale
        factors = self.weight("rope_freqs.weight")
        if factors is not None:  # Llama 3 lengthens its long wavelengths by a factor for each frequency.
            frequency = frequency / factors.astype(np.float64)
        angle = np.arange(x.shape[0], dtype=np.float64)[:, None] * frequency[None, :]
        cos = np.cos(angle).astype(np.float32)[:, None, :]
        sin = np.sin(angle).astype(np.float32)[:, None, :]
        if self.family == "llama":  # GGUF permutes Llama's rows so that neighbours form a pair.
            first, second = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
        else:
            first, second = x[..., :half], x[..., half : 2 * half]
        out = x.copy()
        rotated_first, rotated_second = first * cos - second * sin, first * sin + second * cos
        if self.family == "llama":
            out[..., 0 : 2 * half : 2], out[..., 1 : 2 * half : 2] = rotated_first, rotated_second
        else:
            out[..., :half], out[..., half : 2 * half] = rotated_first, rotated_second
        return out

    def project(self, x, name):
        y = x @ self.weight(f"{name}.weight").T
        bias = self.weight(f"{name}.bias")
        return y if bias is None else y + bias

    def attend(self, x, layer):
        count = x.shape[0]
        block = f"blk.{layer}."
        q = self.project(x, block + "attn_q").reshape(count, self.head_count, self.head_width)
        k = self.project(x, block + "attn_k").reshape(count, self.kv_head_count, self.head_width)
        v = self.project(x, block + "attn_v").reshape(count, self.kv_head_count, -1)
        q_norm, k_norm = self.weight(block + "attn_q_norm.weight"), self.weight(block + "attn_k_norm.weight")
        if q_norm is not None:
            q = self.norm(q, q_norm)
        if k_norm is not None:
            k = self.norm(k, k_norm)
        q, k = self.rotate(q, layer), self.rotate(k, layer)

        distance = np.arange(count)[:, None] - np.arange(count)[None, :]
        hidden = distance < 0
        if self.is_local(layer):
            hidden |= distance >= self.window
        out = np.empty((count, self.head_count, v.shape[-1]), np.float32)
        group = self.head_count // self.kv_head_count
        for head in range(self.head_count):
            scores = (q[:, head] @ k[:, head // group].T) * np.float32(1.0 / math.sqrt(self.head_width))
            if self.attention_soft_cap:
                scores = self.attention_soft_cap * np.tanh(scores / self.attention_soft_cap)
            scores[hidden] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            total = scores.sum(axis=-1, keepdims=True, dtype=np.float64)
            out[:, head] = ((scores @ v[:, head // group]) / total).astype(np.float32)
        return self.project(out.reshape(count, -1), block + "attn_output")

    def feed_forward(self, x, layer):
        block = f"blk.{layer}."
        gate, up = self.project(x, block + "ffn_gate"), self.project(x, block + "ffn_up")
        if self.family == "gemma3":  # GELU in its tanh form: Hendrycks and Gimpel 2016.
            inner = math.sqrt(2.0 / math.pi) * (gate + np.float32(0.044715) * gate**3)
            gate = np.float32(0.5) * gate * (1 + np.tanh(inner))
        else:
            gate = gate / (1 + np.exp(-gate.astype(np.float64)))
        return self.project((gate * up).astype(np.float32), block + "ffn_down")

    def hidden(self, tokens):
        """What the output head sees: (positions, width) float32, after the final norm."""
        x = self.weight("token_embd.weight")[np.asarray(tokens)]
        if self.family == "gemma3":
            x = x * np.float32(math.sqrt(self.width))
        for layer in range(self.layer_count):
            block = f"blk.{layer}."
            y = self.attend(self.norm(x, self.weight(block + "attn_norm.weight")), layer)
            if self.family == "gemma3":
                y = self.norm(y, self.weight(block + "post_attention_norm.weight"))
            x = x + y
            y = self.feed_forward(self.norm(x, self.weight(block + "ffn_norm.weight")), layer)
            if self.family == "gemma3":
                y = self.norm(y, self.weight(block + "post_ffw_norm.weight"))
            x = x + y
        return self.norm(x, self.weight("output_norm.weight"))

    def logits(self, hidden):
        """(positions, vocabulary) float32. A gigabyte for a thousand positions of Gemma: ask for few at a time."""
        y = hidden @ self.head.T
        if self.final_soft_cap:
            y = np.float32(self.final_soft_cap) * np.tanh(y / np.float32(self.final_soft_cap))
        return y

    def block_rows(self):
        """Positions worked on at a time: a block of float64 logits is at most 64 MiB."""
        return max(1, min(256, (64 << 20) // (8 * self.vocabulary)))


def cached_hidden(model, tokens, folder):
    """`model.hidden(tokens)`, kept in `folder` under the hash of the model, the tokens and this file."""
    if folder is None:
        return model.hidden(tokens)
    digest = hashlib.sha256()
    for path in (model.path, __file__):
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    digest.update(np.asarray(tokens, "<u4").tobytes())
    path = os.path.join(folder, f"{digest.hexdigest()[:32]}.npy")
    if os.path.exists(path):
        return np.load(path)
    hidden = model.hidden(tokens)
    os.makedirs(folder, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.npy"
    np.save(temporary, hidden)
    os.replace(temporary, path)
    return hidden


def log_softmax(logits):
    """Natural-log probabilities in float64 of rows of logits."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


class Comparison:
    """Gathers, position by position, how far a distribution lies from the reference's."""

    # A choice is called clear when the reference's best logit leads its second by more than this.
    CLEAR_MARGIN = 0.5

    def __init__(self, model, tokens, hidden):
        self.model, self.tokens, self.hidden = model, np.asarray(tokens), hidden
        self.seen = {}
        self.begin()

    def begin(self):
        """Starts over, for another run over the same tokens. Blocks of rows that an earlier run had already, bit for
        bit and at the same place, are not worked out again."""
        self.position = 0
        self.blocks = []
        self.digest = hashlib.sha256()

    def add(self, rows):
        """Takes the next rows of logits, (n, vocabulary) float32."""
        data = np.ascontiguousarray(rows, "<f4")
        self.digest.update(data)
        key = (self.position, hashlib.sha256(data).digest())
        if key not in self.seen:
            self.seen[key] = self.measure(self.position, data)
        self.blocks.append(self.seen[key])
        self.position += len(data)

    def measure(self, start, rows):
        stop = start + len(rows)
        if not np.isfinite(rows).all():
            raise SystemExit(f"a logit between positions {start} and {stop} is not finite")
        base, other = log_softmax(self.model.logits(self.hidden[start:stop])), log_softmax(rows)
        kl = np.sum(np.exp(base) * (base - other), axis=-1)
        best, choice = base.argmax(axis=-1), other.argmax(axis=-1)
        every = np.arange(len(best))
        top = base[every, best]
        base[every, best] = -np.inf  # The second best is the best without the first; much faster than to sort.
        margin = top - base.max(axis=-1)
        base[every, best] = top
        clear = (best != choice) & (margin > self.CLEAR_MARGIN)
        following = self.tokens[start + 1 : stop + 1]
        index = np.arange(len(following))
        return kl, best == choice, clear, other[index, following], base[index, following]

    def result(self):
        kl, agree, clear, own, reference = (np.concatenate(parts) for parts in zip(*self.blocks))
        return {
            "positions": len(kl),
            "mean_kl": float(kl.mean()),
            "mean_kl_standard_error": float(kl.std() / math.sqrt(len(kl))),
            "max_kl": float(kl.max()),
            "top_agreement": float(agree.mean()),
            "perplexity": math.exp(-float(own.mean())),
            "reference_perplexity": math.exp(-float(reference.mean())),
            "clear_disagreements": int(clear.sum()),
            "rows_sha256": self.digest.hexdigest(),
        }


def compare(model, tokens, paths, folder):
    comparison = Comparison(model, tokens, cached_hidden(model, tokens, folder))
    row_bytes = 4 * model.vocabulary
    results = []
    for path in paths:
        comparison.begin()
        with open(path, "rb") as file:
            while comparison.position < len(tokens):
                wanted = min(model.block_rows(), len(tokens) - comparison.position)
                data = file.read(wanted * row_bytes)
                if len(data) != wanted * row_bytes:
                    got = comparison.position + len(data) / row_bytes
                    raise SystemExit(f"{path}: {got:.2f} rows of {row_bytes} bytes where {len(tokens)} were expected")
                comparison.add(np.frombuffer(data, "<f4").reshape(wanted, model.vocabulary))
            if file.read(1):
                raise SystemExit(f"{path}: more than {len(tokens)} rows of {row_bytes} bytes")
        results.append(comparison.result())
    return results


def greedy(model, tokens, prompt_count, folder):
    hidden = cached_hidden(model, tokens, folder)
    choices = []
    for start in range(prompt_count - 1, len(tokens) - 1, model.block_rows()):
        stop = min(start + model.block_rows(), len(tokens) - 1)
        logits = model.logits(hidden[start:stop])
        best = logits.argmax(axis=-1)
        top = np.sort(np.partition(logits, -2, axis=-1)[:, -2:], axis=-1)
        for i in range(stop - start):
            given, chosen = int(tokens[start + i + 1]), int(best[i])
            choices.append({"token": given, "reference": chosen, "margin": float(top[i, 1] - top[i, 0])})
    return choices


def perplexity(model, tokens, context, chunk_count, bos):
    losses = []
    for chunk in range(chunk_count):
        ids = list(tokens[chunk * context : (chunk + 1) * context])
        if len(ids) < context:
            raise SystemExit(f"{len(tokens)} tokens are fewer than {chunk_count} chunks of {context}")
        if bos is not None:
            ids[0] = bos
        hidden = model.hidden(ids)
        # The second half is scored: position i predicts token i + 1, and the last token predicts nothing.
        for start in range(context // 2, context - 1, model.block_rows()):
            stop = min(start + model.block_rows(), context - 1)
            rows = log_softmax(model.logits(hidden[start:stop]))
            losses.extend(-rows[i - start, ids[i + 1]] for i in range(start, stop))
    return {"perplexity": math.exp(float(np.mean(losses))), "positions": len(losses)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("compare")
    command.add_argument("model")
    command.add_argument("tokens")
    command.add_argument("rows", nargs="+")
    command.add_argument("--cache")
    command = commands.add_parser("greedy")
    command.add_argument("model")
    command.add_argument("tokens", nargs="+")
    command.add_argument("--prompt", type=int, nargs="+", required=True)
    command.add_argument("--cache")
    command = commands.add_parser("perplexity")
    command.add_argument("model")
    command.add_argument("tokens")
    command.add_argument("--context", type=int, required=True)
    command.add_argument("--chunks", type=int, required=True)
    command.add_argument("--bos", type=int)
    arguments = parser.parse_args()
    model = Model(arguments.model)
    if arguments.command == "compare":
        result = compare(model, read_tokens(arguments.tokens), arguments.rows, arguments.cache)
    elif arguments.command == "greedy":
        if len(arguments.tokens) != len(arguments.prompt):
            parser.error("greedy wants one --prompt length for each list of tokens")
        texts = zip(map(read_tokens, arguments.tokens), arguments.prompt)
        result = [greedy(model, tokens, prompt_count, arguments.cache) for tokens, prompt_count in texts]
    else:
        tokens = read_tokens(arguments.tokens)
        result = perplexity(model, tokens, arguments.context, arguments.chunks, arguments.bos)
    json.dump(result, sys.stdout)
    print()


def read_tokens(path):
    with open(path) as file:
        return json.load(file)


if __name__ == "__main__":
    main()
