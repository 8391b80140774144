#!/usr/bin/env python3
"""Measures sentence-transformers on one model as long as it is asked to: a question a line on stdin, an answer a line on stdout.

    sentence_worker.py FOLDER --threads N
      {"do": "texts", "texts": [...]}           keeps the texts; answered by {}
      {"do": "embed", "batch": 32, "s": 1.5}    embeds them in turn, so many a call, for so long; answered by {"rate": texts/s}
      {"do": "vectors", "count": 32}            answered by {"vectors": [...]}, those of the first texts

A call is what a program would write: `encode` of a list of texts, tokenizing included, in float32 on the CPU.
"""
import argparse
import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = SentenceTransformer(arguments.model, device="cpu", local_files_only=True)
    texts = []

    def encode(batch):
        return model.encode(batch, batch_size=max(1, len(batch)), show_progress_bar=False)

    for line in sys.stdin:
        asked = json.loads(line)
        answer = {}
        if asked["do"] == "texts":
            texts = asked["texts"]
        elif asked["do"] == "vectors":
            answer = {"vectors": [encode([text])[0].tolist() for text in texts[: asked["count"]]]}
        else:
            done = 0
            start = time.perf_counter()
            while (elapsed := time.perf_counter() - start) < asked["s"]:
                at = done % len(texts)
                encode(texts[at : at + asked["batch"]])
                done += asked["batch"]
            answer = {"rate": done / elapsed}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
