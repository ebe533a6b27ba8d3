"""What machine tests share: one data directory, so that the base image is made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.conftest import machine_data_dir
from tests.local.clients import Here
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
    up = amibuild(folder, "local", "up", "--machine", "nspawn", "--json")
    assert up.exit_code == 0, up.story
    environment = up.json["environment"]
    session = boto3.Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    url = up.json["url"]
    ec2 = session.client("ec2", endpoint_url=url)
    ssm = session.client("ssm", endpoint_url=url)
    here = Here(environment, folder, ec2, ssm)
    try:
        here.forget_all()
        yield here
    finally:
        amibuild(folder, "local", "down")
