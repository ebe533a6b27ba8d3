"""What machine tests share: one data directory, so that the base image is made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import machine_data_dir
from tests.local.clients import Here, brought_up
from tests.local.scenario import Called, amibuild, new_project


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    """Set for the whole session: module fixtures run before each test's own environment."""
    before = os.environ.get("AMIBUILD_DATA_DIR")
    folder = machine_data_dir()
    os.environ["AMIBUILD_DATA_DIR"] = str(folder)
    yield folder
    if before is None:
        os.environ.pop("AMIBUILD_DATA_DIR", None)
    else:
        os.environ["AMIBUILD_DATA_DIR"] = before


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the shipped recipe."""
    return new_project(tmp_path_factory.mktemp("scenario") / "project")


@pytest.fixture(scope="session")
def baked(folder: Path, data_dir: Path) -> Called:
    """Its bake, done once for all tests that look at the result."""
    done = amibuild(folder, "bake", "--json")
    assert done.exit_code == 0, done.story
    return done


@pytest.fixture(scope="module")
def here(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """`amibuild local up` as a user has it, and at the end `local down`."""
    folder = tmp_path_factory.mktemp("clients")
    here = brought_up(folder, "nspawn")
    try:
        here.forget_all()
        yield here
    finally:
        amibuild(folder, "local", "down")
