"""A machine's life, from what it is asked to how it ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from amibuild.local.life import Life, Order, Wish
from amibuild.local.machines.base import Machine, MachineSpec, MetadataHandler, MetadataResponse
from amibuild.local.machines.none import NoMachine, NoneDriver

TIMEOUT_S = 20.0


class Booting(NoMachine):
    """Does not hear the first time that it is asked to shut down."""

    asked = 0

    def shutdown(self) -> None:
        self.asked += 1
        if self.asked > 1:
            super().shutdown()


class BootingDriver(NoneDriver):
    def start(self, spec: MachineSpec, metadata: MetadataHandler) -> NoMachine:
        return Booting(spec, self, float("inf"), float("inf"))


@dataclass
class Heard:
    """The books: what was told to them can be waited for."""

    running_now: threading.Event = field(default_factory=threading.Event)
    stopped_now: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    reason: str = ""

    def running(self, life: Life, machine: Machine) -> None:
        self.running_now.set()

    def stopped(self, life: Life, *, by_itself: bool) -> None:
        self.stopped_now.set()

    def failed(self, life: Life, reason: str) -> None:
        self.reason = reason
        self.over.set()

    def terminated(self, life: Life) -> None:
        self.over.set()


def order(folder: Path) -> Order:
    return Order(
        instance_id="i-1",
        folder=folder / "i-1",
        hostname="host",
        public_key=None,
        user_data=None,
        network_index=0,
        cpus=1,
        memory_mib=512,
        endpoint_port=1,
        prepare=Path.touch,
        volumes=tuple,
        metadata=lambda _: MetadataResponse(404),
        terminate_on_shutdown=lambda: False,
    )


def test_a_machine_that_did_not_hear_the_button_is_asked_again(tmp_path: Path) -> None:
    """It had just begun to boot: an image was made of one 120 s later, after it was killed."""
    heard = Heard()
    life = Life(order(tmp_path), BootingDriver(), heard)
    life.begin()
    assert heard.running_now.wait(TIMEOUT_S)
    life.wish(Wish.STOP)
    stopped = heard.stopped_now.wait(TIMEOUT_S)
    life.wish(Wish.TERMINATE)
    assert heard.over.wait(TIMEOUT_S)
    assert (stopped, heard.reason) == (True, "")
