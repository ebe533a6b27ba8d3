"""Machines of these tests: each on a copy of the base image's disk, which goes with its test."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild.local.base import ensure_base
from amibuild.local.store import Store
from tests.local.machines.running import DRIVERS, EVERY_DRIVER, Api, Running, Start, starting


@pytest.fixture(scope="session")
def base_disk(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The base image as a disk; its cache is shared with the other machine tests."""
    folder = tmp_path_factory.mktemp("machines")
    with Store.open(folder / "store") as store:
        image = ensure_base(store, data_dir / "local" / "base", progress=lambda _: None)
        assert image is not None
        assert image.snapshot_id is not None
        store.materialise(image.snapshot_id, folder / "disk.raw", size_gib=image.volume_size_gib)
    yield folder / "disk.raw"
    (folder / "disk.raw").unlink()


@pytest.fixture(scope="session")
def endpoint_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def start(base_disk: Path, endpoint_port: int, tmp_path: Path) -> Iterator[Start]:
    """Starts machines of one test."""
    with starting(base_disk, endpoint_port, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_for_all(
    base_disk: Path, endpoint_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts machines that several tests of a module share."""
    with starting(base_disk, endpoint_port, tmp_path_factory.mktemp("shared")) as start:
        yield start


@pytest.fixture(scope="module", params=EVERY_DRIVER, ids=str)
def running(request: pytest.FixtureRequest, start_for_all: Start) -> Iterator[Running]:
    """One machine for all tests that leave it as it was; one of them runs at a time."""
    running = start_for_all(DRIVERS[request.param]())
    running.await_first_boot()
    yield running
    running.machine.kill()
