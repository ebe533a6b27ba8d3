"""Disks of real machines besides the root one: there at the start, plugged in, taken away; and the
copy of a disk whose machine runs on. A driver's tests share one machine, and boot a second one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local import disk as disks
from amibuild.local import sparse
from amibuild.local.machines.base import DataVolume, Driver
from amibuild.wait import Look, until
from tests.local.machines.running import DRIVERS, EVERY_DRIVER, Running, Start

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn, mounts and veth need root"),
]

GIVE_UP_S = 120
BY_ID = "/dev/disk/by-id"


def volume(folder: Path, *, like: Path | None = None) -> DataVolume:
    made = DataVolume(f"vol-{secrets.token_hex(9)[:17]}", folder / f"{secrets.token_hex(4)}.raw")
    if like is not None:
        sparse.copy(like, made.disk)
        return made
    with made.disk.open("xb") as file:
        file.truncate(64 << 20)
    return made


def appears(one: Running, name: str) -> None:
    one.ask(f"for try in $(seq 100); do [ -b {BY_ID}/{name} ] && exit 0; sleep 0.2; done; exit 1")


def let_go(one: Running, volume_id: str) -> None:
    until(
        lambda: Look("held", one.machine.detach(volume_id) or None),
        what=f"{volume_id} to be let go",
        timeout_s=GIVE_UP_S,
    )


@pytest.mark.parametrize("driver", EVERY_DRIVER, ids=str)
def test_a_machines_disks(driver: Driver, start: Start, tmp_path: Path, base_disk: Path) -> None:
    """One story for each driver, since a machine under TCG takes most of a minute to boot."""
    first, second = volume(tmp_path), volume(tmp_path, like=base_disk)
    one = start(DRIVERS[driver](), first)
    one.await_ready()

    # There from the start, under the name that it has on Nitro, and it can be written to.
    device = f"{BY_ID}/nvme-Amazon_Elastic_Block_Store_{first.volume_id.replace('-', '')}"
    one.ask(f"mkfs.ext4 -q {device}; mkdir /data; mount {device} /data; echo kept >/data/file")

    # Plugged in while it runs, partitions and all.
    one.machine.attach(second)
    appears(one, f"{second.link}-part2")
    one.ask(f"mount -o ro,noload {BY_ID}/{second.link}-part2 /mnt")
    assert one.ask("cat /mnt/etc/debian_version") == one.ask("cat /etc/debian_version")

    # A mounted one stays with an nspawn machine; a guest's kernel drops even that.
    if driver is Driver.NSPAWN:
        assert not one.machine.detach(second.volume_id)
    one.ask("umount /mnt")
    let_go(one, second.volume_id)
    assert one.run(f"ls {BY_ID}/{second.link}")[0] != 0
    assert one.left().loops == () or second.disk.name not in str(one.left().loops)

    # A copy is made while it runs, and what was synced before is in it. What was not may be there,
    # or not, or be zeros, as after a power cut: ext4 promises no more.
    one.ask(
        "systemd-run --quiet --unit=writer sh -c "
        "'while :; do echo line >>/root/log; echo line >>/data/log; done'\n"
        "until [ -s /data/log ]; do sleep 0.1; done; sync"
    )
    copy, data = tmp_path / "copy.raw", tmp_path / "data.raw"
    with one.machine.held():
        before = first.disk.read_bytes()
        sparse.copy(one.spec.disk, copy)
        sparse.copy(first.disk, data)
        assert first.disk.read_bytes() == before
    counted = "wc -l </data/log"
    seen = int(one.ask(counted))
    until(
        lambda: Look("still", int(one.ask(counted)) > seen or None),
        what="it to write on",
        timeout_s=GIVE_UP_S,
    )
    disks.trim(copy)
    (tmp_path / "mounted").mkdir()
    read: list[str | Path] = ["head", "-n", "1", tmp_path / "mounted/root/log"]
    assert disks.on_root(copy, tmp_path / "mounted", read).text == "line\n"
    # The volume is as after a power cut, too: its journal mends it.
    assert proc.run(["e2fsck", "-f", "-p", data], check=False).exit_code <= 1

    one.machine.kill()
    assert not one.left()
    proc.run(["e2fsck", "-f", "-p", first.disk], check=False)
    assert proc.run(["debugfs", "-R", "cat /file", first.disk]).text == "kept\n"

    # Such a copy boots: a machine of it goes on where the other one was.
    if driver is Driver.NSPAWN:
        copy.replace(one.spec.disk)
        shutil.rmtree(one.spec.run_dir)
        one.spec.run_dir.mkdir()
        again = start(DRIVERS[driver](), spec=replace(one.spec, volumes=()))
        again.await_ready()
        assert again.ask("head -n 1 /root/log") == "line"
        again.machine.kill()
        assert not again.left()


def test_an_nspawn_machine_keeps_its_disks_over_a_reboot_and_makes_none_itself(
    start: Start, tmp_path: Path
) -> None:
    first, second = volume(tmp_path), volume(tmp_path)
    one = start(DRIVERS[Driver.NSPAWN](), first)
    one.await_first_boot()
    one.machine.attach(second)
    # Where its disks are it can't put the host's.
    assert one.run(f"mknod {BY_ID}/evil b 254 0")[0] != 0
    boot = one.ask("stat -c %Y.%i /run/systemd")
    with contextlib.suppress(HostError):  # the command may go with the machine
        one.run("systemctl --no-block reboot")
    until(lambda: _second_boot(one, boot), what="its second boot", timeout_s=GIVE_UP_S)
    names = one.ask(f"ls {BY_ID}").split()
    assert names == sorted([first.link, second.link])
    one.machine.kill()
    assert not one.left()
    assert one.machine.detach(first.volume_id)


def _second_boot(one: Running, first: str) -> Look[bool]:
    if one.machine.exited():
        pytest.fail(f"it ended:\n{one.machine.console()[-4000:].decode(errors='replace')}")
    if not one.machine.agent_ready():
        return Look("down")
    try:
        code, said, err = one.run("stat -c %Y.%i /run/systemd")
    except HostError as error:  # it went down under the command
        return Look(f"going down: {error}")
    booted = code == 0 and said.strip() != first
    console = one.machine.console()[-2000:].decode(errors="replace")
    return Look(f"up: {code} {err}\n{console}", booted or None)
