"""What was measured, as files of results have it. Fields that this version does not know are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .._client import call
from ._config import BenchmarkType

if TYPE_CHECKING:
    from pandas import DataFrame


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Interval(_Part):
    #: Such as 0.95.
    level: float
    low: float
    high: float


class Statistics(_Part):
    """A figure of a set of samples. `std` divides by n - 1; it is 0 of one sample."""

    mean: float
    std: float
    min: float
    max: float
    #: Of the mean, by bootstrap; None with fewer than six samples.
    interval: Interval | None = None
    #: In the order in which they were measured.
    samples: list[float] | None = None


class Latency(Statistics):
    #: By "50", "90", "95" and "99".
    percentiles: dict[str, float]
    percentile_intervals: dict[str, Interval] | None = None


class MemoryUsage(_Part):
    """MB, 10^6 bytes, of the process."""

    peak: float
    mean: float
    std: float
    min: float | None = None
    max: float | None = None
    interval: Interval | None = None
    samples: list[float] | None = None


class Utilization(_Part):
    """Percent of all CPUs that may be used, and of each GPU."""

    #: Of the program.
    cpu: Statistics | None = None
    #: Of everything on the machine.
    machine: Statistics | None = None
    gpu: Statistics | None = None


class Warmup(_Part):
    iterations: int
    #: Whether the times had become steady.
    steady: bool


class InferenceFigures(_Part):
    """Figures of one batch size."""

    #: Milliseconds from asking until every request of the batch has its whole answer.
    latency: Latency | None = None
    #: Milliseconds from asking until a request's first token; not of models that only embed.
    first_token: Latency | None = None
    #: Tokens a second of all requests together; of models that only embed, texts a second.
    throughput: Statistics | None = None
    memory_usage: MemoryUsage | None = None
    utilization: Utilization | None = None
    warmup: Warmup | None = None
    #: Iterations of each loading of the model, which follow each other; None in older files: there was one.
    loadings: list[int] | None = None


class Loading(_Part):
    #: Milliseconds.
    time: Statistics | None = None
    #: MB: resident at the highest.
    peak: Statistics | None = None
    #: MB of the peak beyond what was resident before.
    added: Statistics | None = None


class Running(_Part):
    #: MB: resident at the highest during a request.
    peak: Statistics | None = None


class MemoryPart(_Part):
    """MB of the model."""

    #: Such as "weights".
    name: str
    estimated_min: float | None = None
    estimated_max: float | None = None
    #: What was set aside.
    taken: float | None = None
    #: What of it was in memory.
    resident: float | None = None


class Amounts(_Part):
    """What is known of a set of amounts too many to keep."""

    count: int
    min: float
    p50: float
    p90: float
    p99: float
    max: float


class NativeAllocations(_Part):
    count: Statistics | None = None
    bytes: Statistics | None = None
    #: Bytes of a piece.
    sizes: Amounts | None = None
    #: Milliseconds from taking a piece to giving it back.
    lifetimes: Amounts | None = None


class AllocatedType(_Part):
    name: str
    objects: float


class Collections(_Part):
    count: int
    total_ms: float
    max_ms: float


class JavaScriptAllocations(_Part):
    objects: Statistics | None = None
    types: list[AllocatedType] | None = None
    collections: Collections | None = None


class Allocations(_Part):
    loading: NativeAllocations | None = None
    native: NativeAllocations | None = None
    javascript: JavaScriptAllocations | None = None


class CacheLevel(_Part):
    #: "L1D", "L2", "L3"
    name: str
    bytes: int
    shared_by: int
    accesses: float
    hits: float
    hit_rate: float


class Cache(_Part):
    source: Literal["hardware counters", "simulator"] | None = None
    description: str | None = None
    levels: list[CacheLevel] | None = None
    #: MB that came from memory for each step.
    memory_per_step: float | None = None
    steps: int | None = None
    followed_steps: int | None = None


class Bandwidth(_Part):
    """GB/s, 10^9 bytes a second, of all threads together."""

    #: "L1D", "L2", "L3" or "memory"
    name: str
    threads: int
    working_bytes: int
    read: Statistics | None = None
    write: Statistics | None = None
    copy_: Statistics | None = Field(default=None, alias="copy")


class MemoryFigures(_Part):
    """What the type memory measures beside latency and memory_usage."""

    loading: Loading | None = None
    running: Running | None = None
    parts: list[MemoryPart] | None = None
    allocations: Allocations | None = None
    cache: Cache | None = None
    bandwidth: list[Bandwidth] | None = None


class DiskAccess(_Part):
    block_bytes: int
    queue_depth: int
    bytes: int
    #: MB/s.
    rate: Statistics | None = None
    #: Accesses a second.
    operations: Statistics | None = None
    #: Milliseconds of an access.
    latency: Latency | None = None


class Disk(_Part):
    folder: str
    file_system: str | None
    #: Whether the page cache was bypassed.
    direct: bool
    file_bytes: int
    sequential_write: DiskAccess | None = None
    sequential_read: DiskAccess | None = None
    random_write: DiskAccess | None = None
    random_read: DiskAccess | None = None


class Network(_Part):
    """TCP over 127.0.0.1."""

    processes: int
    #: MB/s in one direction.
    bandwidth: Statistics | None = None
    bytes: int | None = None
    #: Milliseconds there and back.
    latency: Latency | None = None
    message_bytes: int | None = None


class ThreadPoint(_Part):
    threads: int
    #: 10^9 operations a second.
    rate: Statistics
    #: Times the rate of one thread.
    speedup: float
    speedup_interval: Interval | None = None
    efficiency: float


class Amdahl(_Part):
    """Amdahl's law, fitted to the curve."""

    #: The part that more threads do not make faster, 0 to 1.
    serial: float
    interval: Interval | None = None
    speedup_max: float | None
    residual: float


class Threads(_Part):
    kernel: str
    simd: str
    curve: list[ThreadPoint] | None = None
    amdahl: Amdahl | None = None


class SystemFigures(_Part):
    """What the type system measures."""

    disk: Disk | None = None
    network: Network | None = None
    threads: Threads | None = None
    #: By "disk", "network" and "threads".
    utilization: dict[str, Utilization] | None = None


class Figures(InferenceFigures):
    """The first batch size's figures, and all by batch size; or those of a type of their own."""

    by_batch_size: dict[str, InferenceFigures] | None = None
    memory: MemoryFigures | None = None
    system: SystemFigures | None = None


class SystemInfo(_Part):
    cpu: str
    #: Such as "32GB".
    memory: str
    #: Such as "Linux 5.4.0".
    os: str


class Fingerprint(_Part):
    """What tells a machine, as it was, from others."""

    id: str
    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    bun: str
    governor: str | None
    turbo: bool | None
    virtualization: str | None


class Settings(_Part):
    """What was asked for; None: found while measuring."""

    iterations: int | None
    time_s: float | None
    precision: float
    warmup: int | None
    loadings: int | None = None
    batch_sizes: list[int]
    metrics: list[str]
    prompt_tokens: int
    generated_tokens: int
    threads: int | None
    simd: str | None
    seed: int
    disk_folder: str | None = None


class ModelDetails(_Part):
    path: str
    bytes: int
    sha256: str | None
    architecture: str
    parameters: int
    #: Bytes of weights by format.
    formats: dict[str, int]
    layers: int
    context: int
    simd: str
    threads: int


class Info(_Part):
    """What was measured, when and where. What may be None is missing in files that have the guide's fields alone."""

    #: The model's file name, or the name it was pulled by.
    model: str
    type: BenchmarkType
    #: When measuring began: ISO 8601, UTC.
    timestamp: str
    system_info: SystemInfo
    version: int | None = None
    tinyai: str | None = None
    fingerprint: Fingerprint | None = None
    settings: Settings | None = None
    model_details: ModelDetails | None = None
    #: How it was measured and what was assumed, a sentence each.
    methodology: list[str] | None = None
    #: What a reader has to know, a sentence each.
    warnings: list[str] | None = None
    #: Whether it was ended before its time.
    interrupted: bool | None = None
    #: Whether it took turns with other models.
    in_turns: bool | None = None


_units = {"latency": "ms", "first_token": "ms", "memory_usage": "MB"}


class Results(_Part):
    """The results of a benchmark."""

    benchmark_info: Info
    results: Figures

    def as_json(self) -> dict[str, Any]:
        """The same as plain data, with what was measured and nothing else."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes them as a file that is whole or not there, and that every command of `tinyai benchmark` reads."""
        call("benchmark.save", {"path": os.path.abspath(path), "results": self.as_json()})

    def to_frame(self) -> DataFrame:
        """A row for each batch size and metric: mean, std, min, max, the mean's interval, percentiles, number of samples."""
        return _frame(
            {
                "batch_size": size,
                "metric": name,
                "unit": _units.get(name, self._throughput_unit()),
                "mean": figure.mean,
                "std": figure.std,
                "min": figure.min,
                "max": figure.max,
                "low": figure.interval.low if figure.interval else None,
                "high": figure.interval.high if figure.interval else None,
                **{f"p{part}": value for part, value in getattr(figure, "percentiles", {}).items()},
                "samples": len(figure.samples or []),
            }
            for size, name, figure in self._figures()
        )

    def samples_to_frame(self) -> DataFrame:
        """A row for each sample, in the order in which they were measured."""
        return _frame(
            {"batch_size": size, "metric": name, "index": index, "value": value}
            for size, name, figure in self._figures()
            for index, value in enumerate(figure.samples or [])
        )

    def _figures(self) -> Iterator[tuple[int, str, Statistics | MemoryUsage]]:
        settings = self.benchmark_info.settings
        first = settings.batch_sizes[0] if settings else 1
        for size, figures in (self.results.by_batch_size or {str(first): self.results}).items():
            for name in ("latency", "first_token", "throughput", "memory_usage"):
                figure = getattr(figures, name)
                if figure is not None:
                    yield int(size), name, figure

    def _throughput_unit(self) -> str:
        settings = self.benchmark_info.settings
        return "texts/s" if settings and settings.generated_tokens == 0 else "tokens/s"


def _frame(rows: Iterator[dict[str, Any]]) -> DataFrame:
    try:
        from pandas import DataFrame
    except ImportError:
        raise ImportError(
            "results become frames with pandas: pip install 'tinyai[frames]', or pip install pandas"
        ) from None
    return DataFrame(list(rows))


class Finding(_Part):
    """Something that a reader of the figures has to know."""

    #: Such as "iterations" or "machine".
    kind: str
    #: "warning": figures may mislead.
    severity: Literal["note", "warning"]
    text: str


class Analysis(_Part):
    """What can be said of results."""

    text: str = Field(alias="summary")
    #: The most telling first.
    findings: list[Finding]
    #: What may be said.
    conclusions: list[str]
    #: What may not be said, and why.
    limits: list[str]

    def summary(self) -> str:
        """All of it for people to read, in several lines."""
        return self.text
