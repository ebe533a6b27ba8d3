"""Machines: what a launched instance really is, and which kind of it a launch gets.

Imports little, since `python -m` of the supervisor comes through here for every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from amibuild.errors import HostError
from amibuild.local.machines.base import Driver, MachineDriver

AUTO = "auto"
# The bake sets the launch tag `amibuild:purpose`; this one is the proof that an image boots.
VERIFY = "verify"


def drivers(local: Path) -> dict[Driver, MachineDriver]:
    """The drivers of real machines. `local` is the local target's data folder."""
    from amibuild.local.machines.accelerator import Acceleration
    from amibuild.local.machines.nspawn import NspawnDriver
    from amibuild.local.machines.qemu import QemuDriver

    return {
        Driver.NSPAWN: NspawnDriver(),
        Driver.QEMU: QemuDriver(Acceleration(local / "host.json")),
    }


def choose(requested: str, local: Path) -> Callable[[str], MachineDriver]:
    """What gives each purpose its driver, for `--machine auto|nspawn|qemu`.

    Raises: HostError when the one that was asked for, or under auto every one, lacks something;
    later, the chooser does for a verification without QEMU, which nothing else can replace.
    """
    known = drivers(local)
    if requested != AUTO:
        only = known[Driver(requested)]
        _require(only)
        return lambda _: only
    builder = known[Driver.QEMU if known[Driver.NSPAWN].missing() else Driver.NSPAWN]
    _require(builder)

    def by_purpose(purpose: str) -> MachineDriver:
        if purpose != VERIFY:
            return builder
        _require(known[Driver.QEMU])
        return known[Driver.QEMU]

    return by_purpose


def _require(driver: MachineDriver) -> None:
    missing = driver.missing()
    if missing:
        raise HostError(
            f"no {driver.driver} machine can run here: {'; '.join(missing)}", hint="amibuild doctor"
        )
