"""One instance's machine, from its disk to its end: a thread that alone starts and ends it.

The API only says what is wished for (`wish`), and never waits. What became of it is told to the
books (`Events`), so that states follow what really happened to the machine, not what was asked.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from amibuild.errors import AmibuildError, HostError
from amibuild.local import sparse
from amibuild.local.machines.base import (
    DataVolume,
    Machine,
    MachineDriver,
    MachineSpec,
    MetadataHandler,
)

log = logging.getLogger(__name__)

# A machine under TCG took 20 s for its shutdown; systemd gives a stuck unit 90 s.
STOP_GRACE_S = 120.0
# A machine that has just begun to boot does not hear the button: an image made of one right after
# it was running took those 120 s, and its disk as a kill leaves it.
ASK_AGAIN_S = 1.0
# Fast while somebody waits for the agent, slow for the hours after that.
LOOK_SOON_S = 0.05
LOOK_LATER_S = 0.25


class Wish(StrEnum):
    RUN = "run"
    STOP = "stop"
    KILL = "kill"
    REBOOT = "reboot"
    TERMINATE = "terminate"


class Events(Protocol):
    """What the books hear. Called from the machine's own thread, with nothing locked."""

    def running(self, life: Life, machine: Machine) -> None: ...

    def stopped(self, life: Life, *, by_itself: bool) -> None: ...

    def failed(self, life: Life, reason: str) -> None: ...

    def terminated(self, life: Life) -> None: ...


@dataclass(frozen=True)
class Order:
    """What an instance is made from. `prepare` puts its disk at the path that it gets, and the
    volumes that it starts with where `volumes` says; asked at each start.
    """

    instance_id: str
    folder: Path
    hostname: str
    public_key: str | None
    user_data: bytes | None
    network_index: int
    cpus: int
    memory_mib: int
    endpoint_port: int
    prepare: Callable[[Path], None]
    volumes: Callable[[], tuple[DataVolume, ...]]
    metadata: MetadataHandler
    terminate_on_shutdown: Callable[[], bool]


class Life:
    def __init__(self, order: Order, driver: MachineDriver, events: Events) -> None:
        self.order = order
        self.driver = driver
        self.machine: Machine | None = None
        self.ready_since: datetime | None = None
        self.last_console = b""
        self._events = events
        self._wish = Wish.RUN
        self._between: Callable[[], None] | None = None
        self._bell = threading.Condition()
        self._readers = 0
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(
            target=self._live, name=f"machine-{order.instance_id}", daemon=True
        )

    @property
    def disk(self) -> Path:
        return self.order.folder / "disk.raw"

    def begin(self) -> None:
        self._thread.start()

    def wish(self, wish: Wish, between: Callable[[], None] | None = None) -> None:
        """Says what shall become of it. Nothing comes after TERMINATE.

        `between` runs while a rebooting machine is off, with its disk at rest; or after the end
        of one that did not get as far, with no disk.
        """
        with self._bell:
            if self._wish is not Wish.TERMINATE:
                self._wish = wish
                self._between = between or self._between
            self._bell.notify_all()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def ready_machine(self) -> Machine | None:
        """The machine, if its agent answers: what SSM calls Online."""
        return self.machine if self.ready_since is not None else None

    @property
    def leaving(self) -> bool:
        """It shall be terminated, whether it runs or not."""
        return self._wish is Wish.TERMINATE

    def lost_agent(self) -> None:
        """Its agent went away while it was used: it is not ready before it answers again."""
        self.ready_since = None

    def console(self) -> bytes:
        machine = self.machine
        return machine.console() if machine is not None else self.last_console

    @contextmanager
    def reading_disk(self) -> Iterator[Path]:
        """Keeps the machine from starting while its disk is being captured.

        The path stays good when the instance is terminated meanwhile, as a snapshot does on EC2.
        """
        with self._bell:
            self._readers += 1
            still = self._still()
            os.link(self.disk, still)
        try:
            yield still
        finally:
            still.unlink(missing_ok=True)
            with self._bell:
                self._readers -= 1
                self._bell.notify_all()

    @contextmanager
    def copying_disks(self, disks: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
        """Copies of disks of its, all of one moment while it runs: as after a power cut.

        It stands still for as long as the copying takes.
        Raises: HostError when it does not run, or this host can't hold it; OSError.
        """
        machine, stills = self.machine, tuple(self._still() for _ in disks)
        if machine is None:
            raise HostError(f"{self.order.instance_id} does not run")
        try:
            with machine.held():
                for disk, still in zip(disks, stills, strict=True):
                    sparse.copy(disk, still)
            yield stills
        finally:
            for still in stills:
                still.unlink(missing_ok=True)

    def _still(self) -> Path:
        name = f"{self.order.instance_id}.{next(self._numbers)}.capture"
        return self.order.folder.with_name(name)

    # -- the thread ------------------------------------------------------------------------------

    def _live(self) -> None:
        """Ends with the instance terminated, whatever happens on the way."""
        reason = "the endpoint failed; its log says where"
        try:
            self._prepare()
            while self._may_run():
                by_itself = self._run_once()
                if self._wish is Wish.TERMINATE or (
                    by_itself and self.order.terminate_on_shutdown()
                ):
                    break
                if self._wish is Wish.REBOOT:
                    self._rest()
                    continue
                with self._bell:
                    if by_itself and self._wish is Wish.RUN:
                        self._wish = Wish.STOP
                self._events.stopped(self, by_itself=by_itself)
            reason = ""
        except (AmibuildError, OSError) as error:
            reason = str(error)
            log.warning("%s: %s", self.order.instance_id, reason)
        finally:
            shutil.rmtree(self.order.folder, ignore_errors=True)
            self._rest()
            if reason:
                self._events.failed(self, reason)
            else:
                self._events.terminated(self)

    def _prepare(self) -> None:
        self.order.folder.mkdir(parents=True, mode=0o700)
        self.order.prepare(self.disk)

    def _may_run(self) -> bool:
        """Waits until it shall run and nobody reads its disk; False when it shall be gone."""
        with self._bell:
            self._bell.wait_for(
                lambda: (
                    self._wish is Wish.TERMINATE
                    or (self._wish in {Wish.RUN, Wish.REBOOT} and not self._readers)
                )
            )
            if self._wish is Wish.REBOOT:
                self._wish = Wish.RUN
            return self._wish is Wish.RUN

    def _run_once(self) -> bool:
        """Boots it and stays with it until it is off; True when it went off by itself."""
        run_dir = self.order.folder / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.mkdir(mode=0o700)
        machine = self.driver.start(self._spec(run_dir), self.order.metadata)
        try:
            self.machine = machine
            self._events.running(self, machine)
            return self._watch(machine)
        finally:
            self.ready_since = None
            machine.kill()
            self.last_console = machine.console()
            self.machine = None
            shutil.rmtree(run_dir, ignore_errors=True)

    def _spec(self, run_dir: Path) -> MachineSpec:
        order = self.order
        return MachineSpec(
            instance_id=order.instance_id,
            disk=self.disk,
            run_dir=run_dir,
            hostname=order.hostname,
            public_key=order.public_key,
            user_data=order.user_data,
            network_index=order.network_index,
            cpus=order.cpus,
            memory_mib=order.memory_mib,
            endpoint_port=order.endpoint_port,
            volumes=order.volumes(),
        )

    def _watch(self, machine: Machine) -> bool:
        deadline: float | None = None
        ask_again = 0.0
        while True:
            wish = self._wish
            if wish in {Wish.TERMINATE, Wish.KILL}:
                return False
            if wish in {Wish.STOP, Wish.REBOOT} and time.monotonic() >= ask_again:
                self.ready_since = None
                machine.shutdown()
                ask_again = time.monotonic() + ASK_AGAIN_S
                deadline = deadline or time.monotonic() + STOP_GRACE_S
            if machine.exited():
                return deadline is None
            if deadline is not None and time.monotonic() > deadline:
                log.warning("%s did not shut down in time: killed", self.order.instance_id)
                return False
            if self.ready_since is None and deadline is None and machine.agent_ready():
                self.ready_since = datetime.now(UTC)
            soon = deadline is not None or self.ready_since is None
            with self._bell:
                if self._wish is wish:
                    self._bell.wait(LOOK_SOON_S if soon else LOOK_LATER_S)

    def _rest(self) -> None:
        with self._bell:
            between, self._between = self._between, None
        if between is not None:
            between()
