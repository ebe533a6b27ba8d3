"""The end of machines, in every way they may come to it: their disk stays, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local import disk as disks
from amibuild.local.machines.base import Driver, MetadataResponse
from amibuild.local.machines.nspawn import NspawnDriver
from amibuild.local.machines.order import Addresses
from amibuild.local.machines.processes import command_line, descendants
from amibuild.wait import Look, until
from tests.local.machines.leftovers import leftovers
from tests.local.machines.running import DRIVERS, Start, fetch, new_spec

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn, mounts and veth need root"),
]

ROOT = Path(__file__).parents[3]


def test_a_machine_may_power_itself_off(start: Start) -> None:
    one = start(NspawnDriver())
    one.await_ready()
    with pytest.raises(HostError):  # the command goes with the machine
        one.run("systemctl poweroff; sleep 60")
    one.await_exit()
    assert not one.left()


def test_a_machine_may_reboot_itself(start: Start) -> None:
    one = start(NspawnDriver())
    one.await_first_boot()
    boot = one.ask("cat /proc/sys/kernel/random/boot_id; stat -c %Y /run/systemd")
    leader = one.machine.host_pids()[4]
    with pytest.raises(HostError):
        one.run("systemctl reboot; sleep 60")
    until(
        lambda: Look("up", not Path("/proc", str(leader)).exists() or None),
        what="its going down",
        timeout_s=60,
    )
    one.await_ready()
    assert one.ask("cat /proc/sys/kernel/random/boot_id; stat -c %Y /run/systemd") != boot
    url = "http://169.254.169.254/latest/meta-data/instance-id"
    assert one.ask(fetch(url)) == one.spec.instance_id
    one.machine.kill()
    assert not one.left()


def test_a_command_that_is_stopped_keeps_no_machine(start: Start) -> None:
    """systemd-shutdown stops all of a machine, and nsenter stops itself with its child."""
    one = start(NspawnDriver())
    one.await_ready()
    before = set(descendants(os.getpid()))
    command = one.machine.execute(b"#!/bin/sh\nsleep 600\n", name="asleep")
    until(lambda: Look("starting", _launcher(before)), what="the command", timeout_s=60)
    launcher = _launcher(before)
    assert launcher is not None
    os.kill(launcher, signal.SIGSTOP)
    one.machine.kill()
    assert not one.left()
    with pytest.raises(HostError):
        until(lambda: Look("on", command.poll()), what="its end", timeout_s=60)


def _launcher(before: set[int]) -> int | None:
    """The first process of a command in a machine, as the host sees it: nsenter's child."""
    new = [pid for pid in descendants(os.getpid()) if pid not in before]
    for pid in new:
        if "nsenter --target" in command_line(pid):
            return next((child for child in descendants(pid) if child != pid), None)
    return None


@pytest.mark.parametrize("driver", list(DRIVERS), ids=str)
def test_a_killed_machine_leaves_nothing_and_a_second_kill_does_nothing(
    driver: Driver, start: Start
) -> None:
    one = start(DRIVERS[driver]())
    assert one.left().processes
    one.machine.kill()
    assert one.machine.exited()
    assert not one.left()
    one.machine.kill()
    assert not one.machine.agent_ready()
    with pytest.raises(HostError):
        one.machine.execute(b"#!/bin/sh\n", name="late")


START_AND_WAIT = """
import sys, threading
from pathlib import Path
from amibuild.local.machines.base import MachineSpec, MetadataResponse
from amibuild.local.machines.nspawn import NspawnDriver
from amibuild.local.machines.qemu import QemuDriver
name, disk, run_dir, instance_id, index, port = sys.argv[1:]
driver = {"nspawn": NspawnDriver, "qemu": QemuDriver}[name]()
spec = MachineSpec(instance_id=instance_id, disk=Path(disk), run_dir=Path(run_dir), hostname="h",
    public_key=None, user_data=None, network_index=int(index), cpus=2, memory_mib=1024,
    endpoint_port=int(port))
machine = driver.start(spec, lambda request: MetadataResponse(200))
print(machine.private_ip, flush=True)
while name == "nspawn" and not machine.agent_ready():
    threading.Event().wait(0.05)
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("driver", list(DRIVERS), ids=str)
def test_nothing_is_left_when_the_endpoint_is_killed(
    driver: Driver, base_disk: Path, endpoint_port: int, tmp_path: Path
) -> None:
    spec = new_spec(base_disk, tmp_path, endpoint_port)
    words = [str(driver), spec.disk, spec.run_dir, spec.instance_id, spec.network_index]
    read, write = os.pipe()
    endpoint = proc.start(
        [sys.executable, "-c", START_AND_WAIT, *map(str, words), str(endpoint_port)],
        stdout=write,
        stderr=2,
        env={"PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    with os.fdopen(read) as said:
        address = said.readline().strip()
        assert said.readline() == "ready\n"
    number = int(address.split(".")[2]) * 32 + int(address.split(".")[3]) // 8
    link = Addresses(number).link
    before = leftovers(spec.instance_id, spec.run_dir, spec.disk, link)
    assert before.processes
    assert before.links
    endpoint.kill()
    endpoint.wait()

    def look() -> Look[bool]:
        left = leftovers(spec.instance_id, spec.run_dir, spec.disk, link)
        return Look(str(left), not left or None)

    until(look, what="the machine to go with its endpoint", timeout_s=20)
    shutil.rmtree(spec.run_dir)
    spec.disk.unlink()


HELD = """
import sys, threading
from dataclasses import replace
from pathlib import Path
from amibuild.local.machines.base import DataVolume, MachineSpec, MetadataResponse
from amibuild.local.machines.nspawn import NspawnDriver
disk, run_dir, instance_id, index, port, volume = sys.argv[1:]
spec = MachineSpec(instance_id=instance_id, disk=Path(disk), run_dir=Path(run_dir), hostname="h",
    public_key=None, user_data=None, network_index=int(index), cpus=2, memory_mib=1024,
    endpoint_port=int(port), volumes=(DataVolume("vol-0123456789abcdef0", Path(volume)),))
machine = NspawnDriver().start(spec, lambda request: MetadataResponse(200))
while not machine.agent_ready():
    threading.Event().wait(0.05)
with machine.held():
    print("held", flush=True)
    threading.Event().wait()
"""


def test_nothing_is_left_when_the_endpoint_is_killed_while_it_holds_a_machine(
    base_disk: Path, endpoint_port: int, tmp_path: Path
) -> None:
    """Frozen processes, that is, and a loop device of a volume besides."""
    spec = new_spec(base_disk, tmp_path, endpoint_port)
    volume = tmp_path / "volume.raw"
    with volume.open("wb") as file:
        file.truncate(8 << 20)
    words = [spec.disk, spec.run_dir, spec.instance_id, spec.network_index, endpoint_port, volume]
    read, write = os.pipe()
    endpoint = proc.start(
        [sys.executable, "-c", HELD, *map(str, words)],
        stdout=write,
        stderr=2,
        env={"PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    with os.fdopen(read) as said:
        assert said.readline() == "held\n"
    assert leftovers(spec.instance_id, spec.run_dir, volume).loops
    endpoint.kill()
    endpoint.wait()

    def look() -> Look[bool]:
        left = [leftovers(spec.instance_id, spec.run_dir, file) for file in (spec.disk, volume)]
        return Look(str(left), not any(left) or None)

    until(look, what="the machine to go with its endpoint", timeout_s=20)
    shutil.rmtree(spec.run_dir)
    spec.disk.unlink()


def test_a_machine_that_cannot_start_leaves_nothing(
    endpoint_port: int, base_disk: Path, tmp_path: Path
) -> None:
    spec = new_spec(base_disk, tmp_path, endpoint_port)
    root = disks.root_partition(spec.disk)
    with spec.disk.open("r+b") as file:  # no file system there any more
        file.seek(root.offset)
        file.write(bytes(1 << 20))
    with pytest.raises(HostError, match="mount"):
        NspawnDriver().start(spec, lambda _: MetadataResponse(200))
    assert not leftovers(spec.instance_id, spec.run_dir, spec.disk)
    spec.disk.unlink()


def test_two_machines_with_the_same_number_do_not_meet(start: Start) -> None:
    """Two endpoints on a host number their machines by themselves."""
    first, second = start(NspawnDriver()), start(NspawnDriver())
    assert first.machine.private_ip != second.machine.private_ip
    first.await_ready()
    second.await_ready()
    assert first.ask("cat /var/lib/cloud/data/instance-id") == first.spec.instance_id
    first.machine.kill()
    assert second.ask("cat /var/lib/cloud/data/instance-id") == second.spec.instance_id
    second.machine.kill()
    assert not first.left()
    assert not second.left()
