"""The program behind the calls: one for all, started again when it died, gone when Python is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyai
from tinyai import _client, _program

LONG: tinyai.GenerationOptions = {"max_length": 60_000, "ignore_eos": True}


def process() -> int:
    assert _client._program
    return _client._program._process.pid


def while_it_works(action: Callable[[], object]) -> None:
    """Has a thread do it once a request is under way."""

    def watch() -> None:
        while not (_client._program and _client._program.pending):
            time.sleep(0.001)
        time.sleep(0.05)
        action()

    threading.Thread(target=watch).start()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def python(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_one_program_answers_all_calls_until_it_is_closed(models: Path) -> None:
    tinyai.generate(models / "model.gguf", "hello", max_length=1)
    first = process()
    tinyai.embed(models / "encoder.gguf", ["hello"])
    assert process() == first
    tinyai.close()
    assert not is_alive(first)
    tinyai.close()
    tinyai.generate(models / "model.gguf", "hello", max_length=1)
    assert process() != first


def test_a_program_that_was_killed_is_started_again(models: Path) -> None:
    expected = tinyai.generate(models / "model.gguf", "hello", max_length=4, seed=1)
    first = process()
    os.killpg(first, signal.SIGKILL)
    assert _client._program
    while _client._program.alive:
        time.sleep(0.001)
    assert tinyai.generate(models / "model.gguf", "hello", max_length=4, seed=1).tokens == expected.tokens
    assert process() != first


def test_a_call_whose_program_dies_says_so(models: Path) -> None:
    while_it_works(lambda: os.killpg(process(), signal.SIGKILL))
    with pytest.raises(tinyai.ProgramError, match="ended with status -9"):
        tinyai.generate(models / "model.gguf", "hello", **LONG)
    assert tinyai.generate(models / "model.gguf", "hello", max_length=1).tokens


def test_threads_call_at_once_and_get_their_own_answers(models: Path) -> None:
    prompts = ["hello", "time", "world", "once upon a time"]
    alone = [tinyai.generate(models / "model.gguf", prompt, max_length=30, seed=1).text for prompt in prompts]
    together: dict[str, str] = {}
    barrier = threading.Barrier(len(prompts))

    def work(prompt: str) -> None:
        barrier.wait()
        together[prompt] = "".join(tinyai.stream(models / "model.gguf", prompt, max_length=30, seed=1))

    threads = [threading.Thread(target=work, args=[prompt]) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[prompt] for prompt in prompts] == alone


def test_another_thread_cancels_a_call(models: Path) -> None:
    cancellation = tinyai.Cancellation()
    while_it_works(cancellation.cancel)
    with pytest.raises(tinyai.Cancelled) as caught:
        tinyai.generate(models / "model.gguf", "hello", **LONG, cancellation=cancellation)
    assert (caught.value.code, caught.value.results) == ("cancelled", None)
    with pytest.raises(tinyai.Cancelled):
        tinyai.generate(models / "model.gguf", "hello", cancellation=cancellation)
    assert not in_use()


def test_a_call_that_takes_too_long_is_cancelled(models: Path) -> None:
    with pytest.raises(TimeoutError, match="took longer than 0.05 s"):
        tinyai.generate(models / "model.gguf", "hello", **LONG, timeout=0.05)
    assert not in_use()


def test_ctrl_c_cancels_a_call_and_leaves_the_program(models: Path) -> None:
    tinyai.generate(models / "model.gguf", "hello", max_length=1)
    first = process()
    while_it_works(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(tinyai.Interrupted) as caught:
        tinyai.generate(models / "model.gguf", "hello", **LONG)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert not in_use()
    assert process() == first


def test_leaving_a_stream_ends_it(models: Path) -> None:
    for _ in tinyai.stream(models / "model.gguf", "hello", **LONG):
        assert in_use()
        break
    while in_use():
        time.sleep(0.001)


def in_use() -> bool:
    return any(model["in_use"] for model in _client.call("models", {})["models"])


def test_arguments_that_are_too_long_are_refused_before_they_are_sent(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit itself takes seconds to reach.
    monkeypatch.setattr(_client, "_LINE_BYTES_MAX", 1 << 20)
    with pytest.raises(tinyai.OptionError, match="of at most 1048576"):
        tinyai.embed(models / "encoder.gguf", ["x" * (1 << 20)])
    assert tinyai.generate(models / "model.gguf", "hello", max_length=1).tokens


SCRIPT = """
import sys, time, tinyai
from tinyai import _client
tinyai.generate(sys.argv[1], "hello", max_length=1)
print(_client._program._process.pid, flush=True)
"""


def test_a_python_that_ends_leaves_no_program(models: Path) -> None:
    script = python(SCRIPT, models / "model.gguf")
    output, errors = script.communicate()
    assert (script.returncode, errors) == (0, "")
    assert not is_alive(int(output))


def test_a_python_that_is_killed_leaves_no_program(models: Path) -> None:
    script = python(SCRIPT + "time.sleep(600)", models / "model.gguf")
    assert script.stdout
    pid = int(script.stdout.readline())
    assert is_alive(pid)
    script.kill()
    script.communicate()
    assert ends(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_program_of_its_own(models: Path) -> None:
    script = """
import os, warnings
warnings.simplefilter("ignore")
if os.fork() == 0:
    tinyai.generate(sys.argv[1], "hello", max_length=1)
    print(_client._program._process.pid, flush=True)
    tinyai.close()
    os._exit(0)
os.wait()
tinyai.generate(sys.argv[1], "hello", max_length=1)
print(_client._program._process.pid)
"""
    output, errors = python(SCRIPT + script, models / "model.gguf").communicate()
    assert errors == ""
    first, forked, again = output.split()
    assert first == again
    assert forked != first


def test_the_program_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def executable(name: str) -> str:
        file = tmp_path / "a folder" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
        return str(file)

    monkeypatch.setenv("PATH", str(tmp_path / "a folder"))
    monkeypatch.setenv("TINYAI_PROGRAM", "'some bun' main.ts")
    assert _program.find_program() == ["some bun", "main.ts"]
    monkeypatch.setenv("TINYAI_PROGRAM", executable("other"))
    assert _program.find_program() == [executable("other")]
    monkeypatch.setenv("TINYAI_PROGRAM", "")
    with pytest.raises(tinyai.ProgramError, match="neither bun nor npx is on PATH"):
        _program.find_program()
    main = str(Path(__file__).resolve().parents[2] / "src" / "cli" / "main.ts")
    npx = executable("npx")
    assert _program.find_program() == [npx, "-y", "bun@1.4.5", main]
    bun = executable("bun")
    assert _program.find_program() == [bun, main]
    tinyai_ = executable("tinyai")
    assert _program.find_program() == [tinyai_]
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(_program, "_checkout", lambda: None)
    with pytest.raises(tinyai.ProgramError, match="TINYAI_PROGRAM"):
        _program.find_program()


def test_a_request_may_be_as_large_as_results_are(program: list[str]) -> None:
    with pytest.raises(tinyai.OptionError, match="^more: is not a parameter"):
        _client.call("models", {"more": "x" * 70_000_000})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('no library')", "ended with status 1: no library$"),
        ("print('{\"protocol\": 2}', flush=True); input()", "speaks another protocol"),
        *(
            (f"print({line!r}, flush=True); input()", "its answer is not understood")
            for line in ("Hello", "[1]", "5", '{"id": null}', '{"id": []}', "[" * 100_000)
        ),
    ],
)
def test_a_program_that_is_none_is_told(script: str, message: str) -> None:
    with pytest.raises(tinyai.ProgramError, match=message):
        _client._Program([sys.executable, "-c", script])
