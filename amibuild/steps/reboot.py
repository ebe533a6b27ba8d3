"""Reboots the builder after a step, and makes sure that it did: its boot id is another one."""

from __future__ import annotations

from amibuild.communicator.base import Communicator, RemoteJob, check
from amibuild.errors import AwsError, CommandFailed, WaitTimeout
from amibuild.wait import Clock, Look, Observer, silent, until

NOTE = "the machine was rebooted when this step was done"
# It ends first: what tells that it did must not be on its way when everything is stopped.
REBOOT = "systemd-run --quiet --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot\n"
BOOT_ID = 'cat /proc/sys/kernel/random/boot_id >"$AMIBUILD_RESULT"\n'
LOOK_S = 30


def reboot(
    communicator: Communicator, *, timeout_s: float, observer: Observer, clock: Clock | None = None
) -> None:
    """Until jobs run on the next boot.

    Raises: CommandFailed when it can't be asked for; WaitTimeout when the machine stays away, or
    on the boot that it was on.
    """
    before = _boot(communicator)
    check("the reboot", communicator.run(RemoteJob("reboot", REBOOT, LOOK_S), observer))

    def look() -> Look[bool]:
        try:
            now = _boot(communicator)
        except (CommandFailed, WaitTimeout, AwsError) as away:
            return Look(f"away: {away.message}")
        return Look("not rebooted yet" if now == before else "rebooted", now != before or None)

    until(look, what="the reboot", timeout_s=timeout_s, observer=observer, clock=clock)


def _boot(communicator: Communicator) -> bytes:
    job = RemoteJob("boot-id", BOOT_ID, LOOK_S)
    return check("the boot id", communicator.run(job, silent)).result.strip()
