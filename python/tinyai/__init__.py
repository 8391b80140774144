"""Small models from Python: text and vectors here, benchmarks in `tinyai.benchmark`.

The work is done by the `tinyai` program, which is started with the first call, kept for all further ones, and ended with Python.
"""

from ._client import Cancellation, close
from ._errors import (
    BenchmarkFileError,
    Cancelled,
    DownloadError,
    EngineError,
    Error,
    Interrupted,
    LibraryError,
    MemoryLimitError,
    ModelFileError,
    OptionError,
    ProgramError,
    TimedOut,
)
from ._models import EmbeddingOptions, Generation, GenerationOptions, Timings, embed, generate, stream

__version__ = "0.1.0"

__all__ = [
    "BenchmarkFileError",
    "Cancellation",
    "Cancelled",
    "DownloadError",
    "EmbeddingOptions",
    "EngineError",
    "Error",
    "Generation",
    "GenerationOptions",
    "Interrupted",
    "LibraryError",
    "MemoryLimitError",
    "ModelFileError",
    "OptionError",
    "ProgramError",
    "TimedOut",
    "Timings",
    "close",
    "embed",
    "generate",
    "stream",
]
