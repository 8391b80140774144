"""Where the `tinyai` program is. Nothing here starts it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from ._errors import ProgramError

#: What runs a checkout where there is no `bun`.
_BUN = "bun@1.4.5"


def find_program() -> list[str]:
    """The command that starts the program: `TINYAI_PROGRAM`, `tinyai` on PATH, or the checkout that this package is of."""
    named = os.environ.get("TINYAI_PROGRAM", "").strip()
    if named:
        return [named] if shutil.which(named) else shlex.split(named)
    installed = shutil.which("tinyai")
    if installed:
        return [installed]
    main = _checkout()
    if main is None:
        raise ProgramError(
            "the program tinyai is not on PATH, and this package was not installed from a checkout of TinyAI: "
            "put the program on PATH, or name it with the environment variable TINYAI_PROGRAM"
        )
    bun, npx = shutil.which("bun"), shutil.which("npx")
    if bun:
        return [bun, str(main)]
    if npx:
        return [npx, "-y", _BUN, str(main)]
    raise ProgramError(
        f"neither bun nor npx is on PATH to run {main}: install Bun, "
        "or name the program with the environment variable TINYAI_PROGRAM"
    )


def _checkout() -> Path | None:
    """The program's source beside the folder `python` that this package was installed from, or lies in."""
    for folder in (_installed_from(), Path(__file__).resolve().parents[1]):
        main = folder.parent / "src" / "cli" / "main.ts" if folder else None
        if main and main.is_file():
            return main
    return None


def _installed_from() -> Path | None:
    """What `pip install` was given, if that was a folder (PEP 610)."""
    try:
        url = json.loads(metadata.distribution("tinyai").read_text("direct_url.json") or "{}").get("url", "")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    parts = urlparse(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None
