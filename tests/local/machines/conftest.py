"""The machines of these tests: each on a copy of the base image's disk."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild.local.base import ensure_base
from amibuild.local.machines.base import (
    DataVolume,
    MachineDriver,
    MachineSpec,
    MetadataRequest,
    MetadataResponse,
)
from amibuild.local.store import Store
from tests.local.machines.running import DRIVERS, Api, Running, Start, new_spec


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


@pytest.fixture(scope="session")
def start(
    base_disk: Path, endpoint_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts machines, each on a copy of the base disk, and ends those that still run."""
    started: list[Running] = []

    def begin(
        driver: MachineDriver, *volumes: DataVolume, spec: MachineSpec | None = None
    ) -> Running:
        """With `spec` on the disk that it names, else on a new one."""
        if spec is None:
            spec = new_spec(base_disk, tmp_path_factory.mktemp("machine"), endpoint_port)
            spec = replace(spec, volumes=volumes)
        asked: list[MetadataRequest] = []

        def metadata(request: MetadataRequest) -> MetadataResponse:
            asked.append(request)
            return MetadataResponse(200, spec.instance_id.encode())

        running = Running(driver.start(spec, metadata), spec, asked)
        started.append(running)
        return running

    yield begin
    for running in started:
        running.machine.kill()
        running.spec.disk.unlink(missing_ok=True)


@pytest.fixture(scope="module", params=list(DRIVERS), ids=str)
def running(request: pytest.FixtureRequest, start: Start) -> Iterator[Running]:
    """One machine for all tests that leave it as it was; one of them runs at a time."""
    running = start(DRIVERS[request.param]())
    running.await_ready()
    running.ask("cloud-init status --wait >/dev/null || [ $? -eq 2 ]")
    yield running
    running.machine.kill()
