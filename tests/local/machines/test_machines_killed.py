"""kill -9 of each process that makes up a machine: the rest of it goes, and the endpoint hears."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local.machines import cgroups, network
from amibuild.local.machines.base import Driver, MetadataResponse
from amibuild.local.machines.nspawn import NspawnDriver
from amibuild.local.machines.order import MACHINES, Addresses
from amibuild.local.machines.processes import (
    command_line,
    descendants,
    folder_of,
    namespace_pids,
)
from amibuild.local.machines.remains import remove_links, supervisors_below
from amibuild.wait import Look, SystemClock, until
from tests.local.machines.leftovers import leftovers
from tests.local.machines.running import DRIVERS, Running, Start, new_spec

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn, mounts and veth need root"),
]
EXIT_S = 30


def supervisor(pids: tuple[int, ...]) -> int:
    return pids[0]


def first_process(pids: tuple[int, ...]) -> int:
    """PID 1 of the supervisor's pid namespace."""
    depth = len(namespace_pids(pids[0])) + 1
    found = [p for p in pids if namespace_pids(p)[-1:] == (1,) and len(namespace_pids(p)) == depth]
    return found[0]


def program(name: str) -> Callable[[tuple[int, ...]], int]:
    def find(pids: tuple[int, ...]) -> int:
        return next(pid for pid in pids if name in command_line(pid).split(" ", 1)[0])

    find.__name__ = name
    return find


def leader(pids: tuple[int, ...]) -> int:
    """PID 1 of an nspawn machine itself."""
    depth = len(namespace_pids(pids[0])) + 2
    found = [p for p in pids if namespace_pids(p)[-1:] == (1,) and len(namespace_pids(p)) == depth]
    return found[0]


def kill(one: Running, find: Callable[[tuple[int, ...]], int]) -> None:
    """Nothing of it is left once the driver calls it gone: no moment later, at once."""
    victim = until(lambda: _look(one, find), what=find.__name__, timeout_s=EXIT_S)
    os.kill(victim, signal.SIGKILL)
    one.await_exit(EXIT_S)
    left = one.left()
    assert not left, left
    assert one.machine.host_pids() == ()
    one.machine.kill()


def _look(one: Running, find: Callable[[tuple[int, ...]], int]) -> Look[int]:
    try:
        return Look("there", find(one.machine.host_pids()))
    except (StopIteration, IndexError):  # it has just been forked, and is not yet what it will be
        return Look("not there yet")


@pytest.mark.parametrize(
    "victim",
    [supervisor, first_process, program("systemd-nspawn"), leader, program("slirp4netns")],
    ids=lambda victim: victim.__name__,
)
def test_a_machine_in_nspawn_ends_with_each_of_its_processes(
    start: Start, victim: Callable[[tuple[int, ...]], int]
) -> None:
    one = start(NspawnDriver())
    one.await_ready()
    kill(one, victim)


@pytest.mark.parametrize(
    "victim",
    [supervisor, first_process, program("qemu-system"), program("slirp4netns")],
    ids=lambda victim: victim.__name__,
)
def test_a_machine_under_qemu_ends_with_each_of_its_processes(
    start: Start, victim: Callable[[tuple[int, ...]], int]
) -> None:
    kill(start(DRIVERS[Driver.QEMU]()), victim)


def test_a_link_that_nobody_has_any_more_is_removed_and_no_other(start: Start) -> None:
    one = start(NspawnDriver())
    index, holder = network.claim(MACHINES - 1)
    link = Addresses(index).link
    proc.run(["ip", "link", "add", link, "type", "veth", "peer", "name", f"peer{index}"])
    with holder:
        assert link not in remove_links()
    assert link in remove_links()
    assert not Path("/sys/class/net", link).exists()
    assert one.left().links == (one.link,)
    one.machine.kill()


def test_the_group_of_a_dead_supervisor_is_removed_and_no_other(start: Start) -> None:
    one = start(NspawnDriver())
    ended = proc.start(["true"])
    ended.wait()
    groups = cgroups.groups_of("i-0123456789abcdef0", ended.pid)
    for group in groups:
        (group / "payload").mkdir(parents=True)
    assert set(cgroups.sweep()) >= set(groups)
    assert not any(group.exists() for group in groups)
    assert one.left().groups
    one.machine.kill()


@pytest.mark.parametrize("after", ["at once", "with its first process", "with slirp4netns"])
def test_a_supervisor_killed_while_it_starts_a_machine_leaves_nothing(
    base_disk: Path, endpoint_port: int, tmp_path: Path, after: str
) -> None:
    spec = new_spec(base_disk, tmp_path, endpoint_port)

    def kill_it() -> None:
        until(look, what="the supervisor", timeout_s=EXIT_S, clock=Impatient())

    def look() -> Look[bool]:
        pids = [pid for pid in supervisors_below(spec.run_dir) if spec.run_dir == folder_of(pid)]
        below = descendants(pids[0]) if pids else ()
        wanted = {
            "at once": bool(pids),
            "with its first process": len(below) > 1,
            "with slirp4netns": any("slirp4netns" in command_line(pid) for pid in below),
        }[after]
        if not wanted:
            return Look("not there")
        os.kill(pids[0], signal.SIGKILL)
        return Look("killed", True)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises((HostError, OSError)):
        NspawnDriver().start(spec, lambda _: MetadataResponse(200))
    killer.join()
    left = leftovers(spec.instance_id, spec.run_dir, spec.disk)
    assert not left, left
    spec.disk.unlink()


class Impatient(SystemClock):
    """The start of a machine takes tenths of a second: each look a thousandth after the last."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 100)
