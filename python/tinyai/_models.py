"""Texts and vectors."""

from __future__ import annotations

import os
import sys
from array import array
from base64 import b64decode
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import TypedDict, Unpack

from ._client import Cancellation, Message, call, events
from ._errors import option_error

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

#: A path of a GGUF or .tinyai file or of a model's folder, or the name of a model that was pulled.
Model = str | os.PathLike[str]
#: A text, or a conversation such as `[{"role": "user", "content": "Hello"}]`.
Prompt = str | Sequence[Mapping[str, str]]


class CallOptions(TypedDict, total=False):
    """What every call takes."""

    #: Threads that compute; another number loads the model once more.
    threads: int
    #: Seconds that the call may take; `TimedOut` is raised then.
    timeout: float
    #: Ends the call from another thread; `Cancelled` is raised then.
    cancellation: Cancellation


class GenerationOptions(CallOptions, total=False):
    """What `generate` and `stream` take: as the flags of `tinyai generate`, whose help says ranges and defaults."""

    max_length: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    repeat_last: int
    #: 0 to 2^64 - 1; the same gives the same text.
    seed: int
    stop: str | Sequence[str]
    ignore_eos: bool


class EmbeddingOptions(CallOptions, total=False):
    """What `embed` takes: as the flags of `tinyai embed`, whose help says more."""

    pooling: Literal["mean", "first", "last"]
    normalise: bool
    truncate: bool
    dimensions: int


@dataclass(frozen=True)
class Timings:
    """How long a generation took, in milliseconds, and tokens a second."""

    first_token_ms: float
    prompt_tokens_per_s: float
    generated_tokens_per_s: float
    wall_ms: float


@dataclass(frozen=True)
class Generation:
    """What a generation came to. As a string it is its text."""

    text: str
    #: Ids of the generated tokens, an end token included.
    tokens: list[int]
    prompt_tokens: int
    #: The prompt's first tokens that another call had computed.
    reused_tokens: int
    #: "eos": the model ended. "stop": a stop text was reached. "length": `max_length` was.
    finish: Literal["eos", "stop", "length"]
    seed: int
    #: Natural logarithms of the tokens' probabilities.
    logprobs: list[float]
    timings: Timings

    def __str__(self) -> str:
        return self.text


def generate(model: Model, prompt: Prompt, **options: Unpack[GenerationOptions]) -> Generation:
    """Generates a text after a prompt.

    The model stays in memory for further calls. Raises `OptionError`, `ModelFileError` and other kinds of `Error`, and
    `Interrupted` at Ctrl-C.
    """
    params, limits = _split(options)
    return _generation_of(call("generate", params | {"model": model_path(model), "prompt": prompt}, **limits))


def stream(model: Model, prompt: Prompt, **options: Unpack[GenerationOptions]) -> Generator[str, None, Generation]:
    """As `generate`, piece by piece. Leaving the loop ends the generation; what the generator returns sums it up."""
    params, limits = _split(options)
    running = events("generate", params | {"model": model_path(model), "prompt": prompt, "stream": True}, **limits)
    try:
        while True:
            yield next(running)["text"]
    except StopIteration as ended:
        return _generation_of(ended.value)
    finally:
        running.close()


@overload
def embed(
    model: Model, texts: Sequence[str], *, as_lists: Literal[True], **options: Unpack[EmbeddingOptions]
) -> list[list[float]]: ...
@overload
def embed(
    model: Model, texts: Sequence[str], *, as_lists: bool = False, **options: Unpack[EmbeddingOptions]
) -> NDArray[numpy.float32] | list[list[float]]: ...
def embed(
    model: Model, texts: Sequence[str], *, as_lists: bool = False, **options: Unpack[EmbeddingOptions]
) -> NDArray[numpy.float32] | list[list[float]]:
    """Vectors of texts: the more alike two texts are in meaning, the larger is their vectors' cosine.

    An array with a row for each text if numpy is there, else, or with `as_lists`, lists. Errors are as those of `generate`.
    """
    if isinstance(texts, str):
        raise option_error("texts", "is a text; a list of texts is expected")
    params, limits = _split(options)
    data = bytearray()

    def take(event: Message) -> None:
        data.extend(b64decode(event["vectors"]))

    params |= {"model": model_path(model), "texts": list(texts)}
    width = call("embed", params, on_event=take, **limits)["dimensions"]
    arrays = None if as_lists else _numpy()
    if arrays:
        rows: NDArray[numpy.float32] = arrays.frombuffer(data, dtype="<f4").reshape(-1, width)
        return rows
    values = array("f", bytes(data))
    if sys.byteorder == "big":
        values.byteswap()
    return [values[begin : begin + width].tolist() for begin in range(0, len(values), width)]


def _numpy() -> Any:
    """The module, or None."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the program is told, and what is for the call alone."""
    limits = {name: options[name] for name in ("timeout", "cancellation") if name in options}
    params = {name: value for name, value in options.items() if name not in limits and value is not None}
    if isinstance(params.get("seed"), int):
        params["seed"] = str(params["seed"])  # It may have more digits than a number of JSON keeps.
    return params, limits


def _generation_of(result: Mapping[str, Any]) -> Generation:
    fields = {name: result[name] for name in Generation.__dataclass_fields__}
    timings = Timings(**{name: result["timings"][name] for name in Timings.__dataclass_fields__})
    return Generation(**fields | {"seed": int(result["seed"]), "timings": timings})


def model_path(model: Model) -> str:
    """A model as the program finds it, whose working folder may be another: a path as a whole one, a name as it is."""
    path = os.fspath(model)
    return os.path.abspath(path) if os.path.exists(path) else path
