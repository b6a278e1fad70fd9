"""Find the programs that tests run; a missing one skips on a user's machine and fails in CI."""

import os
import shutil
from pathlib import Path

import pytest

_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/lib/postgresql/15/bin")


def find_program(name: str) -> Path | None:
    """Return the path of `name` on PATH or in the places where Debian keeps servers, or None."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SBIN))
    return Path(found) if found else None


def require_program(name: str, package: str | None = None) -> Path:
    """Return the path of `name`; where it is missing skip the test with a reason, or fail it in CI."""
    found = find_program(name)
    if found:
        return found
    message = f"{name} is not installed (Debian package {package or name})"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
