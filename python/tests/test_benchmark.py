"""Benchmarks from Python: the guide's code, and that configuration and results are those of the program."""

from __future__ import annotations

import json
import re
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy
import pandas
import pydantic
import pytest

import tinyai
import tinyai.benchmark as benchmark
from tinyai.benchmark import Config, Results
from tinyai.benchmark._results import Latency

_folder = Path(__file__).resolve().parents[1]
_schemas = _folder.parent / "src" / "benchmark"

#: A file of results that has the guide's fields alone.
GUIDE: dict[str, Any] = {
    "benchmark_info": {
        "model": "model.tinyai",
        "type": "inference",
        "timestamp": "2024-03-21T10:00:00Z",
        "system_info": {"cpu": "Intel Xeon E5-2680", "memory": "32GB", "os": "Linux 5.4.0"},
    },
    "results": {
        "latency": {
            "mean": 15.2,
            "std": 1.5,
            "min": 13.1,
            "max": 18.3,
            "percentiles": {"50": 15.0, "90": 16.8, "95": 17.5, "99": 18.1},
        },
        "throughput": {"mean": 65.8, "std": 3.2, "min": 60.1, "max": 70.5},
        "memory_usage": {"peak": 1024, "mean": 896, "std": 45},
    },
}


def examples() -> list[str]:
    """The README's, in order."""
    return re.findall(r"^```python\n(.*?)^```", (_folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_readmes_examples_run_as_written(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = examples()
    names: dict[str, Any] = {}
    # The guide's code, but for the number: a thousand iterations of each batch size take a minute.
    assert first.count("iterations=1000") == 1
    exec(first.replace("iterations=1000", "iterations=7"), names)
    printed = capsys.readouterr().out
    assert printed == names["analysis"].summary() + "\n"
    assert re.search(r"^latency, ms +16 +7 ", printed, re.MULTILINE)
    results = names["results"]
    assert isinstance(results, Results)
    assert list(results.results.by_batch_size) == ["1", "4", "8", "16"]
    for figures in results.results.by_batch_size.values():
        check_latency(figures.latency)
        assert figures.throughput.mean > 0
        assert figures.memory_usage.peak > 10

    # What was saved is what was measured.
    for code in rest:
        exec(code, names)
    assert names["results"] == results
    check_frames(results, names["frame"], names["samples"])
    assert names["vectors"].shape == (2, 64)
    output = capsys.readouterr().out
    assert output.startswith(f"{results.results.latency.percentiles['99']} ms\n")
    assert output.endswith("enough\n")


def check_latency(latency: Latency) -> None:
    """Its figures are those of its samples, computed here."""
    samples = latency.samples
    assert samples is not None
    assert len(samples) == 7
    assert latency.mean == pytest.approx(statistics.fmean(samples))
    assert latency.std == pytest.approx(statistics.stdev(samples))
    assert (latency.min, latency.max) == (min(samples), max(samples))
    for part, value in latency.percentiles.items():
        assert value == pytest.approx(numpy.percentile(samples, int(part)))


def check_frames(results: Results, frame: pandas.DataFrame, samples: pandas.DataFrame) -> None:
    sizes, metrics = [1, 4, 8, 16], ["latency", "first_token", "throughput", "memory_usage"]
    assert list(zip(frame["batch_size"], frame["metric"])) == [(size, metric) for size in sizes for metric in metrics]
    latency = frame[frame["metric"] == "latency"].set_index("batch_size")
    of_eight = results.results.by_batch_size["8"].latency
    assert latency.loc[8, "mean"] == of_eight.mean
    assert latency.loc[8, "p99"] == of_eight.percentiles["99"]
    assert latency.loc[8, "low"] == of_eight.interval.low
    assert set(zip(frame["metric"], frame["unit"])) == set(zip(metrics, ["ms", "ms", "tokens/s", "MB"]))
    means = samples.groupby(["batch_size", "metric"])["value"].mean()
    assert means[8, "latency"] == pytest.approx(of_eight.mean)
    assert samples.groupby(["batch_size", "metric"]).size()[8, "latency"] == 7


def test_ctrl_c_keeps_what_was_measured(models: Path) -> None:
    config = Config(model_path=models / "model.gguf", iterations=1_000_000, batch_sizes=[2])
    parts: list[tuple[float, str]] = []

    def interrupt(part: float, doing: str) -> None:
        parts.append((part, doing))
        if part > 0 and doing.startswith("loading"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(tinyai.Interrupted) as caught:
        benchmark.run(config, on_progress=interrupt)
    assert all(0 <= part <= 1 for part, _ in parts)
    results = caught.value.results
    assert results
    assert results.benchmark_info.interrupted
    assert results.results.latency and results.results.latency.samples
    assert "interrupted" in benchmark.analyze(results).summary()


def test_a_benchmark_that_was_cancelled_before_it_measured_has_no_results(models: Path) -> None:
    cancellation = tinyai.Cancellation()
    config = Config(model_path=models / "model.gguf", iterations=1_000_000)
    with pytest.raises(tinyai.Cancelled) as caught:
        benchmark.run(config, on_progress=lambda part, doing: cancellation.cancel(), cancellation=cancellation)
    assert caught.value.results is None
    with pytest.raises(tinyai.TimedOut):
        benchmark.run(config, timeout=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"iterations": -1},
        {"batch_sizes": []},
        {"batch_sizes": [1, 1]},
        {"batch_sizes": [65]},
        {"metrics": ["speed"]},
        {"benchmark_type": "speed"},
        {"iteratoins": 1},
        {"time_s": 0},
        {"precision": float("nan")},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(wrong))):
        Config(model_path="model.tinyai", **wrong)


def test_settings_have_the_names_and_bounds_of_configurations() -> None:
    published = json.loads((_schemas / "config.schema.json").read_text())["properties"]
    ours = Config.model_json_schema()["properties"]
    of_other_verbs = {"quantize", "tune_s", "measure_roofs", "confidence_level"}
    assert set(ours) - {"model_path", "benchmark_type"} == set(published) - of_other_verbs
    for name, setting in ours.items():
        if name in published:
            assert (name, bounds(setting)) == (name, bounds(published[name]))


def bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """What it says of allowed values, of null and of what is in a list."""
    found: dict[str, Any] = {}
    for part in schema.get("anyOf", [schema]):
        found |= {key: part[key] for key in part if re.fullmatch(r".*(imum|Length|Items)|enum", key)}
        if "items" in part:
            found["items"] = bounds(part["items"])
    return found


def test_the_program_refuses_what_only_it_can_know(models: Path) -> None:
    model = models / "model.gguf"
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"benchmark_type": "training"}, "benchmark_type", "TinyAI does not train models yet"),
        ({"model_path": None}, "model_path", "is missing"),
        ({"simd": "x"}, "simd", "there is no level"),
        ({"iterations": 1, "precision": 0.1}, "precision", "does nothing beside iterations"),
    ]
    for settings, option, message in wrong:
        with pytest.raises(tinyai.OptionError, match=message) as caught:
            benchmark.run(Config(**{"model_path": model} | settings))
        assert caught.value.option == option


def test_a_file_of_the_guides_fields_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "guide.json"
    path.write_text(json.dumps(GUIDE))
    results = benchmark.load(path)
    assert results.results.latency
    assert results.results.latency.percentiles["99"] == 18.1
    assert results.as_json() == GUIDE
    frame = results.to_frame()
    assert list(frame["metric"]) == ["latency", "throughput", "memory_usage"]
    assert results.samples_to_frame().empty
    results.save(tmp_path / "copy.json")
    assert json.loads((tmp_path / "copy.json").read_text()) == GUIDE


def test_fields_that_are_not_known_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "more.json"
    more = GUIDE | {"results": GUIDE["results"] | {"latency": GUIDE["results"]["latency"] | {"colour": "blue"}}}
    path.write_text(json.dumps(more))
    assert benchmark.load(path).as_json() == more


def test_files_that_hold_no_results_are_errors_that_name_them(tmp_path: Path) -> None:
    wrong = {
        "none.json": (None, "cannot be read"),
        "empty.json": ("", "is empty"),
        "torn.json": (json.dumps(GUIDE)[:100], "is cut short or damaged"),
        "foreign.json": ("{}", "has no benchmark_info"),
        "newer.json": (json.dumps({"benchmark_info": GUIDE["benchmark_info"] | {"version": 99}}), "by a newer TinyAI"),
    }
    for name, (text, message) in wrong.items():
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(tinyai.BenchmarkFileError, match=message) as caught:
            benchmark.load(path)
        assert (caught.value.code, caught.value.path) == ("benchmark_file", str(path))
    with pytest.raises(tinyai.OptionError, match="^path: there is no folder"):
        Results.model_validate(GUIDE).save(tmp_path / "none" / "results.json")


def test_every_field_of_the_format_has_a_name_here() -> None:
    published = json.loads((_schemas / "results.schema.json").read_text())
    ours = Results.model_json_schema()
    assert names_missing(published, ours, published, ours) == []


def names_missing(part: Any, other: Any, schema: Any, other_schema: Any, where: str = "") -> list[str]:
    """Fields of a part of one schema that the same part of another does not have, by their paths."""
    part, other = resolved(part, schema), resolved(other, other_schema)
    named, there = part.get("properties", {}), other.get("properties", {})
    # Names that are data, as those of percentiles are, may be anything there.
    may_be_any = not there and "additionalProperties" in other
    found = [] if may_be_any else [f"{where}.{name}" for name in named if name not in there]
    for name in named.keys() & there.keys():
        found += names_missing(named[name], there[name], schema, other_schema, f"{where}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(part.get(inner), dict):
            found += names_missing(part[inner], other[inner], schema, other_schema, f"{where}[]")
    return found


def resolved(part: Any, schema: Any) -> Any:
    """What a reference is to, and what something is that may be null."""
    for choice in part.get("anyOf", []):
        if choice.get("type") != "null":
            part = choice
    return schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def test_frames_need_pandas_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install"):
        Results.model_validate(GUIDE).to_frame()
