"""Benchmarks of models and of this machine: `Config` says what is measured, `run` measures, `analyze` judges."""

from __future__ import annotations

import os
from collections.abc import Callable

from .._client import Cancellation, Message, call
from .._errors import Cancelled, Interrupted
from ._config import BenchmarkType, Config, Metric
from ._results import Analysis, Finding, Results

__all__ = ["Analysis", "BenchmarkType", "Config", "Finding", "Metric", "Results", "analyze", "load", "run"]


def run(
    config: Config,
    *,
    on_progress: Callable[[float, str], None] | None = None,
    timeout: float | None = None,
    cancellation: Cancellation | None = None,
) -> Results:
    """Measures what the configuration says. Calls of other threads wait until it is over, and it until they are.

    `on_progress` is called with what is done of it, 0 to 1, and what is being done. Ctrl-C raises `Interrupted`,
    `cancellation` `Cancelled`, and `timeout` seconds `TimedOut`: what was measured by then is in their `results`.
    """

    def tell(event: Message) -> None:
        if on_progress:
            on_progress(event["progress"], event["doing"])

    try:
        answer = call("benchmark.run", config.parameters(), on_event=tell, timeout=timeout, cancellation=cancellation)
    except (Cancelled, Interrupted) as stopped:
        if stopped.partial is not None:
            stopped.results = Results.model_validate(stopped.partial)
        raise
    return Results.model_validate(answer)


def analyze(results: Results) -> Analysis:
    """Says what results hold and how far they can be trusted, as `tinyai benchmark analyze` does."""
    return Analysis.model_validate(call("benchmark.analyze", {"results": results.as_json()}))


def load(path: str | os.PathLike[str]) -> Results:
    """The results in a file, as `Results.save` or `tinyai benchmark run` wrote it. Raises `BenchmarkFileError`."""
    return Results.model_validate(call("benchmark.load", {"path": os.path.abspath(path)}))
