"""What a machine is to the endpoint: a Protocol that each driver fulfils.

A driver turns a MachineSpec into a running machine. The endpoint owns when it starts and ends;
the driver owns how. A machine never outlives the process that started it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Driver(StrEnum):
    NSPAWN = "nspawn"
    QEMU = "qemu"
    NONE = "none"


@dataclass(frozen=True)
class DataVolume:
    """A raw disk besides the root one. The machine may write to it."""

    volume_id: str
    disk: Path

    @property
    def serial(self) -> str:
        """What the disk says of itself, as on EBS: the volume's id without its dash."""
        return self.volume_id.replace("-", "")

    @property
    def link(self) -> str:
        """Its name in /dev/disk/by-id inside, which is the one that it has on EC2's Nitro."""
        return f"nvme-Amazon_Elastic_Block_Store_{self.serial}"


@dataclass(frozen=True)
class MachineSpec:
    """All that a machine is made from.

    `disk` is a raw GPT disk of its final size, already materialised; the machine may write to it.
    `run_dir` is empty and the machine's own: seed, sockets, console log; the caller removes it.
    `endpoint_port` is where the API listens on the host's 127.0.0.1; inside the machine the same
    port on 127.0.0.1 reaches it, so that a presigned URL means the same on both sides.
    `volumes` are there from the first moment on.
    """

    instance_id: str
    disk: Path
    run_dir: Path
    hostname: str
    public_key: str | None
    user_data: bytes | None
    network_index: int
    cpus: int
    memory_mib: int
    endpoint_port: int
    volumes: tuple[DataVolume, ...] = ()


@dataclass(frozen=True)
class MetadataRequest:
    """One HTTP request to 169.254.169.254:80 that came from inside a machine."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case


@dataclass(frozen=True)
class MetadataResponse:
    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


MetadataHandler = Callable[[MetadataRequest], MetadataResponse]


class AgentCommand(Protocol):
    """A command that runs as root inside a machine."""

    def poll(self) -> int | None:
        """The exit code once it has ended, None before. Raises: HostError when the agent died."""

    def output(self) -> tuple[bytes, bytes]:
        """stdout and stderr so far, each cut at 1 MiB."""

    def cancel(self) -> None:
        """Ends the command and all that it started."""


class Machine(Protocol):
    """A started machine. Every method may be called from any thread."""

    driver: Driver
    private_ip: str
    """The address that the host reaches it at (root), else 127.x.y.z."""
    ssh_port: int
    """22 where the host has root, else the forwarded high port on `private_ip`."""

    def agent_ready(self) -> bool:
        """True once commands can be run: SSM registers the machine then. Never blocks over 2 s."""

    def execute(self, script: bytes, *, name: str) -> AgentCommand:
        """Starts a script (its first line says the interpreter) as root, in a clean environment.

        `name` is unique for this machine and safe in a file or unit name.
        """

    def shutdown(self) -> None:
        """Asks for a clean shutdown, as the ACPI button does. Returns at once."""

    def kill(self) -> None:
        """Ends it now, and returns once nothing of it is left: process, mount, loop, namespace."""

    def exited(self) -> bool:
        """True once it has powered itself off or died, and nothing of it is left on the host."""

    def attach(self, volume: DataVolume) -> None:
        """Plugs in a disk while it runs, where `volume.link` says.

        Raises: HostError when it takes no more, or has ended.
        """

    def detach(self, volume_id: str) -> bool:
        """Asks for a disk back; True once the machine has let go of it, and its file is at rest.

        To be called again until then: a machine lets go when it is ready to, and an nspawn
        machine not before it has unmounted the disk. True as well when it has no such disk.
        Raises: HostError when it can't be asked.
        """

    def held(self) -> AbstractContextManager[None]:
        """Nothing in it runs for so long, and all its disks are as after a power cut.

        Raises: HostError when this host can't.
        """

    def console(self) -> bytes:
        """What it wrote to its console so far; the last 64 KiB."""

    def host_pids(self) -> tuple[int, ...]:
        """The host's process ids that make it up, for `local status`."""


class MachineDriver(Protocol):
    driver: Driver

    def missing(self) -> tuple[str, ...]:
        """What this host lacks to run it, each a short sentence; empty when it works."""

    def start(self, spec: MachineSpec, metadata: MetadataHandler) -> Machine:
        """Boots it; returns when its processes run, long before it is ready.

        Raises: HostError, with nothing left behind.
        """
