"""The one program that all calls share, and the lines of JSON between it and them.

Every call may come from any thread. A program that died is started again by the next call.
"""

from __future__ import annotations

import atexit
import io
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from typing import Any

from ._errors import Cancelled, Interrupted, ProgramError, TimedOut, error_of, option_error
from ._program import find_program

Message = Mapping[str, Any]

_PROTOCOL = 1
#: Of a request; the program refuses longer ones. The largest file of results has less.
_LINE_BYTES_MAX = 256 << 20
#: `npx` may have to download Bun first.
_START_S = 180.0
#: What the program may take for the end of a call that was cancelled: the step that runs is finished first.
_CANCEL_S = 30.0
_END_S = 5.0


class Cancellation:
    """Lets another thread end calls that it was given to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Ends the calls that run, which raise `Cancelled`, and every later one before it begins."""
        with self._lock:
            self._cancelled = True
            calls = list(self._calls)
        for call in calls:
            call()

    def _add(self, call: Callable[[], None]) -> Callable[[], None]:
        """Has `call` called when it is cancelled, until what is returned is called."""
        with self._lock:
            if self._cancelled:
                raise Cancelled()
            self._calls.append(call)
        return lambda: self._calls.remove(call)  # Once, and at once: no lock is needed.


class _Request:
    """A request that was sent, and its answers as they come."""

    def __init__(self, program: _Program, number: int, answers: queue.SimpleQueue[Message]) -> None:
        self._program = program
        self._number = number
        self._answers = answers

    def next(self, deadline: float | None = None) -> Message:
        """The next answer. Raises `queue.Empty` once the clock `time.monotonic` shows the deadline."""
        return self._answers.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))

    def cancel(self) -> None:
        self._program.write({"cancel": self._number})

    def last(self) -> Message:
        """The answer that ends it, after it was cancelled. A program that gives none is ended."""
        deadline = time.monotonic() + _CANCEL_S
        try:
            while "event" in (answer := self.next(deadline)):
                pass
            return answer
        except queue.Empty:
            self._program.kill()
            return {"error": {"code": "program", "message": "the program did not answer"}}

    def forget(self) -> None:
        self._program.pending.pop(self._number, None)


class _Program:
    """A program that was started."""

    def __init__(self, command: list[str]) -> None:
        self.pending: dict[int, queue.SimpleQueue[Message]] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._hello: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._errors = tempfile.TemporaryFile()
        self._name = " ".join(command)
        self._end: str | None = None
        try:
            self._process = subprocess.Popen(
                [*command, "pipe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                # A process group of its own: Ctrl-C is for Python alone, which then says what is to end.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise ProgramError(f"{self._name} cannot be started: {error.strerror}") from error
        threading.Thread(target=self._read, name="tinyai answers", daemon=True).start()
        threading.Thread(target=self._write, name="tinyai requests", daemon=True).start()
        try:
            hello = self._hello.get(timeout=_START_S)
        except BaseException as error:
            self.kill()
            if isinstance(error, queue.Empty):
                raise ProgramError(f"{self._name} said nothing for {_START_S:.0f} s") from None
            raise
        if hello.get("protocol") != _PROTOCOL:
            other = f"{self._name} speaks another protocol than this package: install both of one version of TinyAI"
            problem = self._end or other
            self.kill()
            raise ProgramError(problem)

    @property
    def alive(self) -> bool:
        return self._end is None

    def send(self, method: str, params: Mapping[str, Any]) -> _Request:
        number = next(self._numbers)
        line = _line({"id": number, "method": method, "params": params})
        if len(line) > _LINE_BYTES_MAX:
            raise option_error("arguments", f"have {len(line)} bytes as JSON, of at most {_LINE_BYTES_MAX}")
        answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        with self._lock:
            if self._end is not None:
                raise ProgramError(self._end)
            self.pending[number] = answers
        self._lines.put(line)
        return _Request(self, number, answers)

    def write(self, message: Message) -> None:
        self._lines.put(_line(message))

    def close(self) -> None:
        """Lets it end, which cancels what runs, or ends it."""
        self._lines.put(None)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it at once, with what it started."""
        try:
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def abandon(self) -> None:
        """Lets go of it in a forked process: it belongs to the other one, and ends with that one's end of the pipe."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        # It is no child of this process.
        self._process.returncode = 0

    def _write(self) -> None:
        """Writes what is to be sent, in a thread of its own: a signal must not leave half a line."""
        pipe = self._process.stdin
        assert pipe
        try:
            while line := self._lines.get():
                rest = memoryview(line)
                while rest:
                    rest = rest[pipe.write(rest) :]
            pipe.close()
        except (OSError, ValueError):
            pass  # It has ended, as the other thread will see.

    def _read(self) -> None:
        """Hands out what comes, until the program ends, in a thread of its own."""
        assert isinstance(self._process.stdout, io.RawIOBase)
        problem: str | None = None
        try:
            for line in io.BufferedReader(self._process.stdout, 1 << 16):
                message = json.loads(line)
                number = message.get("id")
                if "protocol" in message:
                    self._hello.put(message)
                elif number is None:
                    problem = message["error"]["message"]
                    break
                elif answers := self.pending.get(number):
                    answers.put(message)
        except Exception as error:  # Whatever it is: who waits must hear of it.
            problem = f"its answer is not understood: {type(error).__name__}: {error}"
        if problem is not None:
            self.kill()
        status = self._process.wait()
        self._lines.put(None)
        end = f"{self._name} ended with status {status}" if problem is None else f"{self._name} was ended: {problem}"
        with self._lock:
            self._end = f"{end}{self._last_words()}"
            waiting = list(self.pending.values())
        self._hello.put({})
        for answers in waiting:
            answers.put({"error": {"code": "program", "message": self._end}})

    def _last_words(self) -> str:
        """The end of what it wrote to its standard error."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        words = self._errors.read().decode(errors="replace").strip()
        return f": {words}" if words else ""


def _line(message: Message) -> bytes:
    return json.dumps(message, allow_nan=False).encode() + b"\n"


_lock = threading.Lock()
_program: _Program | None = None


def _running() -> _Program:
    global _program
    with _lock:
        if _program is None or not _program.alive:
            _program = _Program(find_program())
        return _program


def close() -> None:
    """Ends the program. What runs is cancelled; the next call starts it again."""
    global _program
    with _lock:
        program, _program = _program, None
    if program:
        program.close()


def _after_fork() -> None:
    global _lock, _program
    _lock = threading.Lock()
    if _program:
        _program.abandon()
    _program = None


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def events(
    method: str,
    params: Mapping[str, Any],
    *,
    timeout: float | None = None,
    cancellation: Cancellation | None = None,
) -> Generator[Message, None, Any]:
    """Asks the program, yields the events before the result, and returns the result.

    Leaving it before its end cancels the request. `Cancelled`, `TimedOut` and `Interrupted` carry what the program
    answered to being cancelled as `partial`, if that was a result.
    """
    if cancellation and cancellation.cancelled:
        raise Cancelled()
    deadline = None if timeout is None else time.monotonic() + timeout
    request = _running().send(method, params)
    ended = False
    with ExitStack() as stack:
        stack.callback(request.forget)
        stack.callback(lambda: None if ended else request.cancel())
        if cancellation:
            stack.callback(cancellation._add(request.cancel))
        while True:
            stopped: Cancelled | Interrupted | None = None
            try:
                answer = request.next(deadline)
                if "event" in answer:
                    yield answer["event"]
                    continue
            except KeyboardInterrupt:
                stopped = Interrupted()
            except queue.Empty:
                stopped = TimedOut(f"took longer than {timeout} s", code="timeout")
            if stopped:
                request.cancel()
                answer = request.last()
            ended = True
            if not stopped and cancellation and cancellation.cancelled and _was_cancelled(answer):
                stopped = Cancelled()
            if stopped:
                stopped.partial = answer.get("result")
                raise stopped
            return _result(answer)


def call(
    method: str,
    params: Mapping[str, Any],
    *,
    on_event: Callable[[Message], None] = lambda event: None,
    timeout: float | None = None,
    cancellation: Cancellation | None = None,
) -> Any:
    """Asks the program and waits for the result."""
    running = events(method, params, timeout=timeout, cancellation=cancellation)
    try:
        event = next(running)
        while True:
            try:
                on_event(event)
            except KeyboardInterrupt as interrupt:
                running.throw(interrupt)
            event = next(running)
    except StopIteration as stop:
        return stop.value
    finally:
        running.close()


def _result(answer: Message) -> Any:
    if "result" in answer:
        return answer["result"]
    error = answer["error"]
    raise ProgramError(error["message"]) if error["code"] == "program" else error_of(error)


def _was_cancelled(answer: Message) -> bool:
    """Whether it is the answer of a request that was cancelled: an error, or a benchmark's results until then."""
    if "error" in answer:
        return bool(answer["error"]["code"] == "cancelled")
    info = answer["result"].get("benchmark_info", {})
    return bool(info.get("interrupted", False))
