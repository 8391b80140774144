"""A program of this checkout, tiny models with random weights, and a folder to work in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinyai
from tinyai._program import find_program

_checkout = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command that starts the program, whose cache is a folder of the tests' own."""
    os.environ["TINYAI_HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ["TINYAI_TUNING"] = "off"
    yield find_program()
    tinyai.close()


@pytest.fixture(scope="session")
def models(program: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.gguf, the same as model.tinyai, and encoder.gguf."""
    folder = tmp_path_factory.mktemp("models")
    script = _checkout / "test" / "support" / "make-tiny-model.ts"
    subprocess.run([*program[:-1], str(script), str(folder)], check=True)
    subprocess.run(
        [*program, "prepare", str(folder / "model.gguf"), "--output", str(folder / "model.tinyai")],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def workplace(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the models in it."""
    for model in models.iterdir():
        shutil.copy(model, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
