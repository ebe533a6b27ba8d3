"""All machines of the endpoint: who starts one, where its files lie, and that none outlives us."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from amibuild.local.life import Events, Life, Order, Wish
from amibuild.local.machines.base import MachineDriver

log = logging.getLogger(__name__)

CLOSE_DEADLINE_S = 60.0
# What the host and the endpoint themselves need, and a machine must not take.
HOST_MEMORY_MIB = 1024
LEAST_MEMORY_MIB = 512
MOST_MEMORY_MIB = 4096

# The driver for a launch whose tag `amibuild:purpose` is this.
ChooseDriver = Callable[[str], MachineDriver]


class Fleet:
    def __init__(self, folder: Path, choose: ChooseDriver) -> None:
        """`folder` belongs to the fleet. There is none: what was left of it is removed before."""
        self.folder = folder
        self.choose = choose
        self._lives: dict[str, Life] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Machines of two endpoints on one host must not meet: their addresses follow the number.
        self._first = os.getpid() % 128 * 64
        folder.mkdir(parents=True, mode=0o700)

    def launch(
        self, order: Callable[[Path, int], Order], driver: MachineDriver, *, events: Events
    ) -> Life | None:
        """Starts a machine's life; None once the fleet is closing.

        `order` gets the fleet's folder and the machine's number, unique among the living.
        """
        with self._lock:
            if self._closed:
                return None
            taken = {life.order.network_index for life in self._lives.values()}
            number = next(n for n in itertools.count(self._first) if n not in taken)
            life = Life(order(self.folder, number), driver, events)
            self._lives[life.order.instance_id] = life
        life.begin()
        return life

    def life(self, instance_id: str) -> Life | None:
        with self._lock:
            return self._lives.get(instance_id)

    def forget(self, instance_id: str) -> None:
        """Its machine is gone: its number may be used again."""
        with self._lock:
            self._lives.pop(instance_id, None)

    def close(self) -> None:
        """Ends every machine; returns once nothing of them is left."""
        with self._lock:
            self._closed = True
            lives = list(self._lives.values())
        for life in lives:
            life.wish(Wish.TERMINATE)
        for life in lives:
            if not life.join(CLOSE_DEADLINE_S):
                log.error("%s did not end in %.0f s", life.order.instance_id, CLOSE_DEADLINE_S)
        shutil.rmtree(self.folder, ignore_errors=True)


def machine_size(vcpus: int, memory_mib: int) -> tuple[int, int]:
    """CPUs and MiB for a machine of that instance type, as far as this host goes."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)
    spare = max(pages - HOST_MEMORY_MIB, LEAST_MEMORY_MIB)
    return (
        max(1, min(vcpus, os.cpu_count() or 1)),
        max(LEAST_MEMORY_MIB, min(memory_mib, spare, MOST_MEMORY_MIB)),
    )
