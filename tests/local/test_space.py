"""Images of one descent share their blocks: ten that each add 1 MB take less than 1.5 of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import space

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and nspawn machines need root"),
]

DESCENDANTS = 10
MOST = 1.5


@pytest.fixture
def base(data_dir: Path) -> Path:
    folder = (data_dir / "local" / "base").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_ten_descendants_take_little_more_than_one(tmp_path: Path, base: Path) -> None:
    found = space.unbooted(tmp_path, base, DESCENDANTS)
    assert found.count == DESCENDANTS
    # Each has a megabyte of its own, and what the file system writes about it.
    assert found.each > space.ADDED
    assert found.share < MOST


@pytest.mark.soak  # ten boots
def test_they_do_with_the_noise_of_a_boot_each_too(tmp_path: Path, base: Path) -> None:
    found = space.booted(tmp_path, base, DESCENDANTS)
    assert found.each > space.ADDED
    assert found.share < MOST
