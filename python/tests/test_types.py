"""Types are as strict as mypy knows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_package_is_typed() -> None:
    folder = Path(__file__).resolve().parents[1]
    check = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir=/dev/null"], cwd=folder, capture_output=True, text=True
    )
    assert check.stdout.startswith("Success: no issues found"), check.stdout + check.stderr
