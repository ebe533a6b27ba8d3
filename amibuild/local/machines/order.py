"""What a driver tells the supervisor to run, as one JSON message over their socket.

Plain dataclasses and the standard library: the supervisor starts for every machine, and pydantic's
import alone would cost more than the rest of its start.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

METADATA_ADDRESS = "169.254.169.254"
NETWORK = "10.213"
MACHINES = 8192
DNS = "10.0.2.3"  # slirp4netns' own resolver, which asks what the host would ask
BY_ID = "by-id"  # the folder of volumes, in /dev/disk
TAP_ADDRESS = "10.0.2.100"  # what slirp4netns --configure gives the machine's side


@dataclass(frozen=True)
class Addresses:
    """The addresses of the n-th machine: a /29 of 10.213.0.0/16, and 127.213.x.y without root."""

    index: int

    def _at(self, host: int, network: str = NETWORK) -> str:
        number = self.index % MACHINES * 8 + host
        return f"{network}.{number // 256}.{number % 256}"

    @property
    def host(self) -> str:
        return self._at(1)

    @property
    def machine(self) -> str:
        return self._at(2)

    @property
    def dns(self) -> str:
        """Only QEMU's own network answers here."""
        return self._at(3)

    @property
    def network(self) -> str:
        return f"{self._at(0)}/29"

    @property
    def loopback(self) -> str:
        return self._at(2, "127.213")

    @property
    def link(self) -> str:
        """The host's side of the veth; 15 characters at most, and no name that networkd knows."""
        return f"amib{self.index % MACHINES}"


INSIDE_LINK = "ami0"  # not en*, eth* or host0: systemd-networkd inside must leave it alone


class Isolation(StrEnum):
    """What keeps a machine and the host apart.

    FULL: root; namespaces, a veth pair to the host. USER: the same below a user namespace, with a
    forwarded port instead of the veth. PLAIN: none, where the host allows none; QEMU only.
    """

    FULL = "full"
    USER = "user"
    PLAIN = "plain"


@dataclass(frozen=True)
class Root:
    """The file system to mount before the machine starts: a partition of its disk.

    `devices` is a folder for the device nodes of its volumes, in memory and outside its reach.
    """

    disk: str
    offset: int
    size: int
    target: str
    devices: str


@dataclass(frozen=True)
class Order:
    """`inherit` are file descriptors that the program gets under the same numbers.

    `restart_code` is the exit code by which the program asks to be started again.
    """

    instance_id: str
    run_dir: str
    network_index: int
    endpoint_port: int
    isolation: Isolation
    ssh_port: int
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    inherit: tuple[int, ...]
    console: int | None
    root: Root | None
    own_cgroup: bool
    restart_code: int | None

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.network_index)

    @property
    def handed_on(self) -> tuple[int, ...]:
        """Descriptors that are the machine's program's only."""
        return (*self.inherit, *([self.console] if self.console is not None else []))

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Order:
        fields = json.loads(raw)
        root = fields.pop("root")
        return cls(
            **{
                **fields,
                "isolation": Isolation(fields["isolation"]),
                "argv": tuple(fields["argv"]),
                "environment": tuple((k, v) for k, v in fields["environment"]),
                "inherit": tuple(fields["inherit"]),
                "root": Root(**root) if root else None,
            }
        )


class Stage(StrEnum):
    """What the supervisor says back. FORKED carries a pidfd of PID 1, where there is one;
    LISTENING the sockets of `listeners`, in order."""

    FORKED = "forked"
    LISTENING = "listening"
    STARTED = "started"
    FAILED = "failed"


def listeners(endpoint_port: int) -> tuple[tuple[str, int], ...]:
    """Where the machine finds IMDS (first) and the API (the others)."""
    return (
        (METADATA_ADDRESS, 80),
        (METADATA_ADDRESS, endpoint_port),
        ("127.0.0.1", endpoint_port),
    )


def message(stage: Stage, text: str = "") -> bytes:
    return json.dumps({"stage": stage.value, "text": text}).encode()


def read_message(raw: bytes) -> tuple[Stage, str]:
    fields = json.loads(raw)
    return Stage(fields["stage"]), str(fields["text"])
