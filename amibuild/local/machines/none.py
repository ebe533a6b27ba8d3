"""The driver `none`: no machine at all, but states that change and commands that answer.

How long everything takes and what commands print is scripted, so that the controller can be
tested against an EC2 that is slow, and be measured alone.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields

from amibuild.errors import HostError, UsageError
from amibuild.local.faults import INVALID, NEVER, Faults
from amibuild.local.machines.base import (
    AgentCommand,
    DataVolume,
    Driver,
    MachineSpec,
    MetadataHandler,
)
from amibuild.local.machines.script import OUTPUT_LIMIT, CommandScript, Outcome, always_succeeds

_LOOK_S = 0.02


class CaptureInvalid(HostError):
    """A capture that leaves its image in the state `invalid`, not `failed`."""

    image_state = "invalid"


@dataclass(frozen=True)
class Latencies:
    """Seconds: pending to running, running to registered, stop, capture, terminate, and until a
    parameter that names an image is validated.
    """

    run: float = 0.0
    ready: float = 0.0
    stop: float = 0.0
    image: float = 0.0
    terminate: float = 0.0
    parameter: float = 0.1

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


class NoCommand:
    """A command that ends as its outcome says, when its time has come."""

    def __init__(self, outcome: Outcome, machine: NoMachine) -> None:
        self._outcome = outcome
        self._machine = machine
        self._ends = time.monotonic() + outcome.seconds
        self._cancelled = False

    def poll(self) -> int | None:
        if self._cancelled:
            return 137
        if time.monotonic() < self._ends:
            return None
        if self._outcome.agent_gone:
            self._machine.lose_agent()
            raise HostError(f"the agent of {self._machine.spec.instance_id} does not answer")
        return self._outcome.exit_code

    def output(self) -> tuple[bytes, bytes]:
        if time.monotonic() < self._ends:
            return b"", b""
        return _bytes(self._outcome.stdout), _bytes(self._outcome.stderr)

    def cancel(self) -> None:
        self._cancelled = True


def _bytes(text: str | bytes) -> bytes:
    return (text.encode() if isinstance(text, str) else text)[:OUTPUT_LIMIT]


class NoMachine:
    driver = Driver.NONE
    ssh_port = 22

    def __init__(
        self, spec: MachineSpec, host: NoneDriver, ready_s: float, deaf_after_s: float
    ) -> None:
        # TEST-NET-1 (RFC 5737): an address that certainly nobody answers at.
        self.private_ip = f"192.0.2.{spec.network_index % 254 + 1}"
        self.spec = spec
        self._host = host
        self._started = time.monotonic()
        self._ready_s = ready_s
        self._deaf_after_s = deaf_after_s
        self._off_at: float | None = None
        # Volumes that it has mounted, so to say: for tests to fill.
        self.holds: set[str] = set()
        self.disks = {volume.volume_id: volume.disk for volume in spec.volumes}

    def agent_ready(self) -> bool:
        age_s = time.monotonic() - self._started
        return not self.exited() and self._ready_s <= age_s < self._ready_s + self._deaf_after_s

    def lose_agent(self) -> None:
        """From now on its agent says nothing, until it boots again."""
        self._deaf_after_s = 0.0

    def execute(self, script: bytes, *, name: str) -> AgentCommand:
        if self.exited():
            raise HostError(f"{self.spec.instance_id} is off")
        if not self.agent_ready():
            raise HostError(f"the agent of {self.spec.instance_id} does not answer")
        return NoCommand(self._host.script(script.decode()), self)

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
    """`machines` are those that it has started, for tests to look at.

    `unwanted` tells of an instance that is still to boot whether it shall be terminated already.
    """

    latencies: Latencies = field(default_factory=Latencies)
    script: CommandScript = always_succeeds
    faults: Faults = field(default_factory=Faults)
    driver: Driver = Driver.NONE
    machines: dict[str, NoMachine] = field(default_factory=dict)
    metadata: dict[str, MetadataHandler] = field(default_factory=dict)
    unwanted: Callable[[str], bool] = lambda _: False

    def __post_init__(self) -> None:
        self._hurry = threading.Event()

    def missing(self) -> tuple[str, ...]:
        return ()

    def start(self, spec: MachineSpec, metadata: MetadataHandler) -> NoMachine:
        fault = self.faults.next("boot")
        unwanted = lambda: self.unwanted(spec.instance_id)  # noqa: E731
        forever = fault is not None and fault.code == NEVER
        self.pause(math.inf if forever else self.latencies.run, unwanted)
        if fault is not None and not forever:
            raise HostError(fault.code)
        silence = self.faults.next("agent")
        ready_s, deaf_after_s = self.latencies.ready, math.inf
        if silence is not None and silence.code == NEVER:
            ready_s = math.inf
        elif silence is not None:
            deaf_after_s = float(silence.code)
        machine = NoMachine(spec, self, ready_s, deaf_after_s)
        self.machines[spec.instance_id] = machine
        self.metadata[spec.instance_id] = metadata
        return machine

    def before_capture(self) -> None:
        """Raises: HostError, when a capture shall fail; CaptureInvalid, when it shall be worse."""
        fault = self.faults.next("capture")
        self.pause(math.inf if fault is not None and fault.code == NEVER else self.latencies.image)
        if fault is None or fault.code == NEVER:
            return
        if fault.code == INVALID:
            raise CaptureInvalid("the image is invalid because it was ordered to be")
        raise HostError(fault.code)

    @property
    def hurried(self) -> bool:
        return self._hurry.is_set()

    def hurry(self) -> None:
        """The endpoint ends: nothing waits any longer."""
        self._hurry.set()

    def pause(self, seconds: float, unwanted: Callable[[], bool] = lambda: False) -> None:
        """Waits, but no longer than somebody wants what it waits for."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not unwanted():
            if self._hurry.wait(min(left_s, _LOOK_S)):
                return
