"""A machine of a test, and what its own endpoint would know about it."""

from __future__ import annotations

import contextlib
import http.server
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from amibuild import proc
from amibuild.local.machines.base import (
    DataVolume,
    Driver,
    Machine,
    MachineDriver,
    MachineSpec,
    MetadataRequest,
    MetadataResponse,
)
from amibuild.local.machines.nspawn import NspawnDriver
from amibuild.local.machines.order import Addresses
from amibuild.local.machines.qemu import QemuDriver
from amibuild.wait import Look, until
from tests.local.machines.leftovers import Leftovers, leftovers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG1hY2hpbmUtdGVzdHMtb2YtYW1pYnVpbGQtLS0tLS0t tests"
USER_DATA = b"#!/bin/sh\necho ran > /root/user-data-ran\n"
API_SAYS = b"the endpoint's own answer"
# 35 s alone on two cores under TCG; other work on the machine may take most of them.
READY_S = 300
COMMAND_S = 300


@dataclass
class Running:
    """A machine of a test, with what its own endpoint would know."""

    machine: Machine
    spec: MachineSpec
    asked: list[MetadataRequest]
    commands: int = field(default=0)

    def run(self, script: str, *, timeout_s: float = COMMAND_S) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a bash script."""
        self.commands += 1
        command = self.machine.execute(
            f"#!/bin/bash\n{script}".encode(), name=f"test-{self.commands}"
        )
        code = until(lambda: Look("running", command.poll()), what="a command", timeout_s=timeout_s)
        out, err = command.output()
        return code, out.decode(), err.decode()

    def ask(self, script: str) -> str:
        """stdout of a script that must work."""
        code, out, err = self.run(f"set -euo pipefail\n{script}")
        assert code == 0, out + err
        return out.strip()

    def await_ready(self) -> None:
        def look() -> Look[bool]:
            if self.machine.exited():
                pytest.fail(f"it ended:\n{self.machine.console().decode(errors='replace')}")
            return Look("booting", self.machine.agent_ready() or None)

        until(look, what=f"{self.machine.driver} to be ready", timeout_s=READY_S)

    def await_first_boot(self) -> None:
        """cloud-init's units have no time-out: a reboot beside them once never came to its end."""
        self.await_ready()
        self.ask("cloud-init status --wait >/dev/null || [ $? -eq 2 ]")

    def await_exit(self, timeout_s: float = 120) -> None:
        until(
            lambda: Look("on", self.machine.exited() or None),
            what="the machine to go off",
            timeout_s=timeout_s,
        )

    def left(self) -> Leftovers:
        spec = self.spec
        return leftovers(spec.instance_id, spec.run_dir, spec.disk, self.link)

    @property
    def link(self) -> str:
        number = int(self.machine.private_ip.split(".")[2]) * 32
        number += int(self.machine.private_ip.split(".")[3]) // 8
        return Addresses(number).link


def new_spec(base_disk: Path, folder: Path, endpoint_port: int) -> MachineSpec:
    disk = folder / "disk.raw"
    proc.run(["cp", "--sparse=always", base_disk, disk])
    (folder / "run").mkdir()
    return MachineSpec(
        instance_id=f"i-{secrets.token_hex(9)[:17]}",
        disk=disk,
        run_dir=folder / "run",
        hostname="ip-10-213-1-2",
        public_key=KEY,
        user_data=USER_DATA,
        network_index=secrets.randbelow(8000),
        cpus=2,
        memory_mib=1024,
        endpoint_port=endpoint_port,
    )


DRIVERS: dict[Driver, Callable[[], MachineDriver]] = {
    Driver.NSPAWN: NspawnDriver,
    Driver.QEMU: QemuDriver,
}
# A virtual machine takes a minute to boot. The bakes have theirs in each run.
EVERY_DRIVER = [
    pytest.param(driver, marks=[pytest.mark.soak] if driver is Driver.QEMU else [])
    for driver in DRIVERS
]


class Start(Protocol):
    def __call__(
        self, driver: MachineDriver, *volumes: DataVolume, spec: MachineSpec | None = None
    ) -> Running: ...


@contextlib.contextmanager
def starting(base_disk: Path, endpoint_port: int, folder: Path) -> Iterator[Start]:
    """Starts machines, each on a copy of the base disk; at the end they are ended and removed.

    Such a copy takes some 400 MB: left until the end of all tests, they filled a CI's disk.
    """
    started: list[Running] = []

    def begin(
        driver: MachineDriver, *volumes: DataVolume, spec: MachineSpec | None = None
    ) -> Running:
        """With `spec` on the disk that it names, else on a new one."""
        if spec is None:
            home = folder / f"machine-{len(started)}"
            home.mkdir()
            spec = replace(new_spec(base_disk, home, endpoint_port), volumes=volumes)
        asked: list[MetadataRequest] = []

        def metadata(request: MetadataRequest) -> MetadataResponse:
            asked.append(request)
            return MetadataResponse(200, spec.instance_id.encode())

        running = Running(driver.start(spec, metadata), spec, asked)
        started.append(running)
        return running

    try:
        yield begin
    finally:
        for running in started:
            running.machine.kill()
        for home in {running.spec.disk.parent for running in started}:
            shutil.rmtree(home)


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(API_SAYS)))
        self.end_headers()
        self.wfile.write(API_SAYS)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the test's output is for failures."""


FETCH = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen('{url}').read())"


def fetch(url: str) -> str:
    return f'python3 -c "{FETCH.format(url=url)}"'
