"""The driver `none`: no machine at all, but states that change and commands that answer.

How long everything takes and what commands print is scripted, so that the controller can be
tested against an EC2 that is slow, and be measured alone.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from amibuild.errors import HostError, UsageError
from amibuild.local.faults import Faults
from amibuild.local.machines.base import (
    AgentCommand,
    DataVolume,
    Driver,
    MachineSpec,
    MetadataHandler,
)


@dataclass(frozen=True)
class Latencies:
    """Seconds: pending to running, running to registered, stop, capture, terminate."""

    run: float = 0.0
    ready: float = 0.0
    stop: float = 0.0
    image: float = 0.0
    terminate: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Latencies:
        """From `run=8,ready=10`. Raises: UsageError."""
        names = [f.name for f in fields(cls)]
        values: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in names or not re.fullmatch(r"\d+(\.\d+)?", value):
                raise UsageError(f"{part!r} is no latency", hint=f"{', '.join(names)}, in seconds")
            values[name] = float(value)
        return cls(**values)


@dataclass(frozen=True)
class Outcome:
    """What a command does: its exit code and output, after so many seconds."""

    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


CommandScript = Callable[[str], Outcome]


def always_succeeds(_: str) -> Outcome:
    return Outcome()


class Line(BaseModel):
    """One entry of a script file: the outcome of commands whose text matches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = ""
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    times: int | None = None


def read_script(path: Path) -> CommandScript:
    """A JSON list of lines; the first that matches (and has turns left) answers.

    Raises: UsageError.
    """
    try:
        lines = TypeAdapter(list[Line]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{path}: {error}") from error
    return Script(lines)


class Script:
    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = [(line, re.compile(line.match)) for line in lines]
        self._left = [line.times for line in lines]
        self._lock = threading.Lock()

    def __call__(self, command: str) -> Outcome:
        with self._lock:
            for n, (line, pattern) in enumerate(self._lines):
                left = self._left[n]
                if pattern.search(command) and left != 0:
                    self._left[n] = None if left is None else left - 1
                    return Outcome(line.exit_code, line.stdout, line.stderr, line.seconds)
        return Outcome()


class NoCommand:
    """A command that ends as its outcome says, when its time has come."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._ends = time.monotonic() + outcome.seconds
        self._cancelled = False

    def poll(self) -> int | None:
        if self._cancelled:
            return 137
        return self._outcome.exit_code if time.monotonic() >= self._ends else None

    def output(self) -> tuple[bytes, bytes]:
        if time.monotonic() < self._ends:
            return b"", b""
        return self._outcome.stdout.encode(), self._outcome.stderr.encode()

    def cancel(self) -> None:
        self._cancelled = True


class NoMachine:
    driver = Driver.NONE
    ssh_port = 22

    def __init__(self, spec: MachineSpec, host: NoneDriver, ready_s: float) -> None:
        # TEST-NET-1 (RFC 5737): an address that certainly nobody answers at.
        self.private_ip = f"192.0.2.{spec.network_index % 254 + 1}"
        self.spec = spec
        self._host = host
        self._started = time.monotonic()
        self._ready_s = ready_s
        self._off_at: float | None = None
        # Volumes that it has mounted, so to say: for tests to fill.
        self.holds: set[str] = set()
        self.disks = {volume.volume_id: volume.disk for volume in spec.volumes}

    def agent_ready(self) -> bool:
        return not self.exited() and time.monotonic() - self._started >= self._ready_s

    def execute(self, script: bytes, *, name: str) -> AgentCommand:
        if self.exited():
            raise HostError(f"{self.spec.instance_id} is off")
        return NoCommand(self._host.script(script.decode()))

    def shutdown(self) -> None:
        if self._off_at is None:
            self._off_at = time.monotonic() + self._host.latencies.stop

    def power_off(self) -> None:
        """It goes off by itself, as after `poweroff` inside. For tests."""
        self._off_at = time.monotonic()

    def kill(self) -> None:
        if not self.exited():
            self._host.pause(self._host.latencies.terminate)
            self._off_at = time.monotonic()

    def exited(self) -> bool:
        return self._off_at is not None and (time.monotonic() >= self._off_at or self._host.hurried)

    def attach(self, volume: DataVolume) -> None:
        self.disks[volume.volume_id] = volume.disk

    def detach(self, volume_id: str) -> bool:
        if volume_id not in self.holds or self.exited():
            self.disks.pop(volume_id, None)
        return volume_id not in self.disks

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def console(self) -> bytes:
        return f"no machine behind {self.spec.instance_id}\n".encode()

    def host_pids(self) -> tuple[int, ...]:
        return ()


@dataclass
class NoneDriver:
    """`machines` are those that it has started, for tests to look at."""

    latencies: Latencies = field(default_factory=Latencies)
    script: CommandScript = always_succeeds
    faults: Faults = field(default_factory=Faults)
    driver: Driver = Driver.NONE
    machines: dict[str, NoMachine] = field(default_factory=dict)
    metadata: dict[str, MetadataHandler] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._hurry = threading.Event()

    def missing(self) -> tuple[str, ...]:
        return ()

    def start(self, spec: MachineSpec, metadata: MetadataHandler) -> NoMachine:
        self.pause(self.latencies.run)
        fault = self.faults.next("boot")
        if fault is not None:
            raise HostError(fault.code)
        deaf = self.faults.next("agent") is not None
        machine = NoMachine(spec, self, float("inf") if deaf else self.latencies.ready)
        self.machines[spec.instance_id] = machine
        self.metadata[spec.instance_id] = metadata
        return machine

    def before_capture(self) -> None:
        """Raises: HostError, when a capture shall fail."""
        self.pause(self.latencies.image)
        fault = self.faults.next("capture")
        if fault is not None:
            raise HostError(fault.code)

    @property
    def hurried(self) -> bool:
        return self._hurry.is_set()

    def hurry(self) -> None:
        """The endpoint ends: nothing waits any longer."""
        self._hurry.set()

    def pause(self, seconds: float) -> None:
        if seconds > 0:
            self._hurry.wait(seconds)
