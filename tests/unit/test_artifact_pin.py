"""`artifacts pin`: what it prints is taken by the recipe, or it says why nothing can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.artifacts import Pin, pin
from amibuild.errors import AmibuildError


def pinned(url: str, base: Path) -> Pin:
    return pin(url, base, None, lambda _: None)


def test_a_device_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(AmibuildError, match="/dev/null: is not a regular file"):
        pinned("file:/dev/null", tmp_path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AmibuildError, match="none: there is no such file"):
        pinned("file:none", tmp_path)
