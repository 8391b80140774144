"""What is measured and how."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .._models import model_path as found

BenchmarkType = Literal["inference", "training", "memory", "system"]
#: "memory" is another name of "memory_usage".
Metric = Literal["latency", "throughput", "memory_usage", "memory"]


def _each_once(sizes: list[int]) -> list[int]:
    if len(set(sizes)) < len(sizes):
        raise ValueError("each batch size once is expected")
    return sizes


class Config(BaseModel):
    """The settings of a benchmark. What is None is found while measuring, or as the program has it by default."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    #: A path of a GGUF or .tinyai file, or the name of a model that was pulled; None of the type system.
    model_path: str | os.PathLike[str] | None = None
    #: "training" is known by name and refused: TinyAI does not train models yet.
    benchmark_type: BenchmarkType = "inference"
    #: Iterations of each batch size; of the types memory and system, samples of each figure. None: until the mean latency
    #: is known to `precision`, or `time_s` is over; of system, and of what memory measures beside requests, 10.
    iterations: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    #: Seconds for each batch size at most, warm-up not counted; of the types memory and system, for everything.
    time_s: Annotated[float, Field(gt=0, le=86_400)] | None = 60
    #: Without `iterations`: measuring ends when half the 95 % interval of the mean latency is this part of it. 0: never.
    precision: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    #: Iterations before the first that counts. None: until their times are steady; of type memory 3.
    warmup: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    #: Of type inference: times that a model is loaded at least, or as often as there are iterations, which are spread over
    #: them. 1 and no `iterations`: once, until it is enough. None: 10.
    loadings: Annotated[int, Field(ge=1, le=1000)] | None = None
    #: Requests at once; several sizes are measured one after another.
    batch_sizes: Annotated[
        list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=64), AfterValidator(_each_once)
    ] = [1]
    metrics: Annotated[list[Metric], Field(min_length=1, max_length=4)] = ["latency", "throughput", "memory_usage"]
    #: Tokens of each prompt, or of each text that is embedded.
    prompt_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    #: Tokens generated for each prompt; a model that only embeds generates none.
    generated_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 16
    #: Threads that compute. None: as many as the model is loaded with otherwise.
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    #: The instruction-set level, by name or number. None: the widest that the CPU runs.
    simd: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    #: Draws orders and resamples; the same seed draws the same.
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    #: Where the type system writes and reads a file of its own. None: a folder of TinyAI's own.
    disk_folder: Annotated[str, Field(min_length=1, max_length=4096)] | None = None

    def parameters(self) -> dict[str, Any]:
        """The request's parameters: what was set, so that the program's own defaults hold for the rest."""
        given = self.model_dump(exclude_unset=True, exclude={"model_path", "benchmark_type"})
        if self.disk_folder is None:
            given.pop("disk_folder", None)
        model = {} if self.model_path is None else {"model_path": found(self.model_path)}
        return model | {"benchmark_type": self.benchmark_type} | given
