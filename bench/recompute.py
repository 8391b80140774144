#!/usr/bin/env python3
"""Recomputes the figures of files of benchmark results from their own samples, with nothing but Python's library.

    python3 bench/recompute.py RESULTS.json ...

Every mean, standard deviation, least and largest value and percentile is computed anew, throughput from latency, and the figures at the
top are compared with those of the first batch size; no peak may be below a sample. A difference of more than 1e-9, as a part, is printed, and
the exit status is 1 then. Intervals are computed with the same draws (intervals.py); those of a mean of very many samples are left
out, and it is said how many.
"""

import json
import math
import statistics
import sys

from intervals import mean_interval, quantile, quantile_interval

TOLERANCE = 1e-9
# Ends of intervals depend on quantiles of distributions, which are computed in another way here.
INTERVAL_TOLERANCE = 1e-7
# Drawing from more samples than this two thousand times takes Python long.
DRAWN_MAX = 1000


class Checker:
    """Counts what was compared, and keeps what differs."""

    def __init__(self):
        self.compared = 0
        self.left_out = 0
        self.problems = []

    def same(self, where, said, computed):
        self.compared += 1
        if not isinstance(said, (int, float)) or not math.isclose(said, computed, rel_tol=TOLERANCE, abs_tol=1e-12):
            self.problems.append(f"{where} is {said!r}, but its samples give {computed!r}")

    def interval(self, where, said, computed):
        self.compared += 1
        ends = None if said is None else (said["low"], said["high"])
        same = ends == computed or (
            ends is not None
            and computed is not None
            and all(math.isclose(a, b, rel_tol=INTERVAL_TOLERANCE) for a, b in zip(ends, computed))
        )
        if not same:
            self.problems.append(f"{where} is {ends}, but its samples give {computed}")

    def true(self, where, holds, problem):
        self.compared += 1
        if not holds:
            self.problems.append(f"{where} {problem}")


def check_figure(check, where, figure, seed):
    """A set of samples and what is said of them."""
    samples = figure["samples"]
    computed = {
        "mean": math.fsum(samples) / len(samples),
        "std": statistics.stdev(samples) if len(samples) > 1 else 0.0,
        "min": min(samples),
        "max": max(samples),
    }
    for name, value in computed.items():
        check.same(f"{where}.{name}", figure.get(name), value)
    ascending = sorted(samples)
    for percent, value in figure.get("percentiles", {}).items():
        check.same(f"{where}.percentiles.{percent}", value, quantile(ascending, float(percent) / 100))
    check_intervals(check, where, figure, seed)


def check_intervals(check, where, figure, seed):
    """Those of percentiles, and that of the mean unless there are very many samples to draw."""
    samples, level = figure["samples"], 0.95
    for percent in figure.get("percentiles", {}):
        said = figure.get("percentile_intervals", {}).get(percent)
        computed = quantile_interval(samples, float(percent) / 100, level)
        check.interval(f"{where}.percentile_intervals.{percent}", said, computed)
    if "interval" not in figure or seed is None:
        return
    if len(samples) > DRAWN_MAX:
        check.left_out += 1
        return
    check.interval(f"{where}.interval", figure["interval"], mean_interval(samples, level, seed))


def check_tree(check, where, value, seed):
    """All sets of samples below a value."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_tree(check, f"{where}[{index}]", item, seed)
    if not isinstance(value, dict):
        return
    if "samples" in value:
        check_figure(check, where, value, seed)
    for name, item in value.items():
        check_tree(check, f"{where}.{name}", item, seed)


def check_batch(check, where, figures, batch_size, settings):
    """What the figures of one batch size say of each other."""
    latency = figures.get("latency")
    throughput = figures.get("throughput")
    first_token = figures.get("first_token")
    memory = figures.get("memory_usage")
    if latency and throughput:
        made = batch_size * (settings["generated_tokens"] or 1)
        check.same(f"{where}.throughput: samples", len(throughput["samples"]), len(latency["samples"]))
        for index, (rate, took_ms) in enumerate(zip(throughput["samples"], latency["samples"])):
            check.same(f"{where}.throughput.samples[{index}]", rate, 1000 * made / took_ms)
    if latency and first_token:
        check.same(f"{where}.first_token: samples", len(first_token["samples"]), batch_size * len(latency["samples"]))
    if memory:
        # Between iterations it may have been more, but not less than the most of them.
        check.same(f"{where}.memory_usage.peak", memory["peak"], max(memory["peak"], *memory["samples"]))


def check_file(path):
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    check = Checker()
    info, results = document["benchmark_info"], document["results"]
    by_size = results.get("by_batch_size", {})
    if info["type"] != "inference":
        check_tree(check, "results", results, None)
    else:
        # At the top there is the same as of the first batch size.
        check_tree(check, "results.by_batch_size", by_size, info["settings"]["seed"])
        for name, figures in by_size.items():
            check_batch(check, f"results.by_batch_size.{name}", figures, int(name), info["settings"])
        first = by_size[str(info["settings"]["batch_sizes"][0])]
        for name, figure in first.items():
            check.true(f"results.{name}", results.get(name) == figure, "is not that of the first batch size")
    return check


def main(paths):
    if not paths:
        print("name files of benchmark results", file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        check = check_file(path)
        for problem in check.problems:
            print(f"{path}: {problem}")
        print(f"{path}: {check.compared} figures compared, {len(check.problems)} differ, {check.left_out} left out")
        failed = failed or bool(check.problems) or check.compared == 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
