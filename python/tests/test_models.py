"""Texts and vectors are those of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import tinyai


def printed(program: list[str], *arguments: str | Path) -> Any:
    """What a command of the program prints as JSON."""
    done = subprocess.run([*program, *map(str, arguments), "--json"], check=True, capture_output=True)
    return json.loads(done.stdout)


def test_a_text_is_the_command_lines(program: list[str], models: Path) -> None:
    seed = 2**64 - 1
    flags = [
        "--prompt",
        "once upon a time",
        "--max-length",
        "12",
        "--top-k",
        "9",
        "--stop",
        "qq",
        "zz",
        "--seed",
        str(seed),
    ]
    expected = printed(program, "generate", "--model", models / "model.gguf", *flags)
    made = tinyai.generate(
        models / "model.gguf", "once upon a time", max_length=12, top_k=9, stop=["qq", "zz"], seed=seed
    )
    assert made.text == str(made) == expected["text"]
    assert made.tokens == expected["tokens"]
    assert made.logprobs == expected["logprobs"]
    assert (made.seed, made.finish, made.prompt_tokens) == (seed, "length", expected["prompt_tokens"])
    assert made.timings.wall_ms > 0


def test_a_stream_gives_the_same_text_in_pieces(models: Path) -> None:
    options: tinyai.GenerationOptions = {"max_length": 12, "seed": 3}
    expected = tinyai.generate(models / "model.gguf", "hello world", **options)
    stream = tinyai.stream(models / "model.gguf", "hello world", **options)
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as ended:
            assert ended.value.tokens == expected.tokens
            break
    assert len(pieces) > 1
    assert "".join(pieces) == expected.text


def test_vectors_are_the_command_lines(program: list[str], models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["hello world", "", "the cat and the dog"]
    expected = numpy.float32(printed(program, "embed", *texts, "--model", models / "encoder.gguf")["vectors"])
    vectors = tinyai.embed(models / "encoder.gguf", texts)
    assert isinstance(vectors, numpy.ndarray)
    assert (vectors.dtype, vectors.shape) == (numpy.float32, (3, 64))
    assert (vectors == expected).all()
    lists = tinyai.embed(models / "encoder.gguf", texts, as_lists=True)
    assert lists == expected.tolist()
    assert tinyai.embed(models / "encoder.gguf", [], as_lists=True) == []
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert tinyai.embed(models / "encoder.gguf", texts) == lists


def test_vectors_are_as_the_options_say(models: Path) -> None:
    whole = numpy.asarray(tinyai.embed(models / "encoder.gguf", ["time"], normalise=False))
    part = numpy.asarray(tinyai.embed(models / "encoder.gguf", ["time"], normalise=False, dimensions=8))
    assert (part == whole[:, :8]).all()
    assert not numpy.isclose(numpy.linalg.norm(whole), 1)


def test_paths_are_of_the_working_folder_as_it_is_now(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tinyai.generate("model.gguf", "hello", max_length=1)
    (workplace / "deeper").mkdir()
    monkeypatch.chdir("deeper")
    with pytest.raises(tinyai.ModelFileError):
        tinyai.generate("./model.gguf", "hello", max_length=1)
    assert tinyai.generate("../model.gguf", "hello", max_length=1).tokens


@pytest.mark.parametrize(
    ("arguments", "option", "message"),
    [
        ({"max_length": 0}, "max_length", "max_length: is 0; a whole number from 1 to 16777216 is expected"),
        ({"top_p": 2}, "top_p", "top_p: is 2; a number from 0 to 1 is expected"),
        ({"seed": -1}, "seed", 'seed: is "-1"; '),
        ({"max_lenght": 1}, "max_lenght", "max_lenght: is not a parameter; there are model, prompt, "),
        ({"prompt": ""}, "prompt", "prompt: is empty; "),
        ({"prompt": "\ud800"}, "prompt", "prompt: has half a character"),
        ({"model": "nonesuch"}, "model", 'model: there is no file and no model named "nonesuch"'),
    ],
)
def test_arguments_out_of_bounds_are_option_errors(
    models: Path, arguments: dict[str, Any], option: str, message: str
) -> None:
    given = {"model": models / "model.gguf", "prompt": "hello"} | arguments
    with pytest.raises(tinyai.OptionError) as caught:
        tinyai.generate(**given)
    assert isinstance(caught.value, (tinyai.Error, ValueError))
    assert (caught.value.code, caught.value.option) == ("option", option)
    assert str(caught.value).startswith(message)


def test_model_files_that_cannot_be_opened_are_errors_of_their_own(models: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes((models / "model.gguf").read_bytes()[:5000])
    with pytest.raises(tinyai.ModelFileError, match="torn.gguf") as caught:
        tinyai.generate(torn, "hello")
    assert (caught.value.code, caught.value.path) == ("model_file", str(torn))
    assert caught.value.field
    with pytest.raises(tinyai.OptionError, match="makes vectors of texts"):
        tinyai.generate(models / "encoder.gguf", "hello")
    with pytest.raises(tinyai.OptionError, match="a list of texts is expected"):
        tinyai.embed(models / "encoder.gguf", "hello")
