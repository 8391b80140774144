"""Everything that TinyAI raises on purpose. The message says what was wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark import Results


class Error(Exception):
    """The root of TinyAI's errors. `code` is stable, for programs; the text is for people."""

    def __init__(self, message: str, *, code: str = "unexpected") -> None:
        super().__init__(message)
        self.code = code


class OptionError(Error, ValueError):
    """An argument outside its bounds. `option` is its name."""

    option: str = ""


class ModelFileError(Error):
    """A model file that cannot be read, is damaged, or asks for something TinyAI does not have."""

    path: str = ""
    #: The field at fault, such as a metadata key or a tensor.
    field: str = ""


class BenchmarkFileError(Error):
    """A file of benchmark results that cannot be read, is damaged, is newer than the program, or is something else."""

    path: str = ""


class LibraryError(Error):
    """The program's native library is missing, cannot be opened, or is of another version."""


class EngineError(Error):
    """What was asked for could not be done."""


class MemoryLimitError(Error, MemoryError):
    """Something would take more memory than the limit leaves. It was refused before it took any."""


class DownloadError(Error):
    """A model that was not pulled yet, or a download that failed."""


class ProgramError(Error):
    """The `tinyai` program cannot be found or started, or ended while it worked. The next call starts another."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="program")


class Cancelled(Error):
    """A call was cancelled by another thread. `results`: what a benchmark had measured by then, None if nothing."""

    results: Results | None = None
    #: What the program answered to being cancelled.
    partial: Any = None

    def __init__(self, message: str = "the call was cancelled", *, code: str = "cancelled") -> None:
        super().__init__(message, code=code)


class TimedOut(Cancelled, TimeoutError):
    """A call took longer than its `timeout`. `results` as in `Cancelled`."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a call, which was cancelled. `results`: what a benchmark had measured by then, None if nothing."""

    results: Results | None = None
    #: What the program answered to being cancelled.
    partial: Any = None


def option_error(option: str, problem: str) -> Error:
    """An `OptionError` of this package's own."""
    return error_of({"code": "option", "message": f"{option}: {problem}", "option": option})


_by_code: Mapping[str, type[Error]] = {
    "option": OptionError,
    "model_file": ModelFileError,
    "benchmark_file": BenchmarkFileError,
    "library": LibraryError,
    "engine": EngineError,
    "memory_limit": MemoryLimitError,
    "download": DownloadError,
    "cancelled": Cancelled,
}


def error_of(answer: Mapping[str, Any]) -> Error:
    """The exception of an error as the program sends it."""
    code = str(answer.get("code", "unexpected"))
    error = _by_code.get(code, Error)(str(answer.get("message", "no reason was given")), code=code)
    for name in ("option", "path", "field"):
        if name in answer and hasattr(error, name):
            setattr(error, name, answer[name])
    return error
