"""The volume of a service, on a machine with a second disk: only it is ever formatted, and once."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local.machines.base import DataVolume
from tests.local.machines.running import DRIVERS, EVERY_DRIVER, Running, Start

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="the machines' network needs root"),
]

PROGRAM = files("amibuild.library") / "every_service" / "bin" / "data-volume"
STATE = "/var/lib/svc-game"
EMPTY, FOREIGN, ABSENT = "vol-0123456789abcdef0", "vol-0123456789abcdef1", "vol-0123456789abcdef2"
LARGER = "vol-0123456789abcdef3"
FOREIGN_BYTES = b"\x1f\x8b".ljust(510, b"\0") + b"\x55\xaa"  # as a disk with a partition table ends


@pytest.fixture(scope="module", params=EVERY_DRIVER, ids=str)
def machine(request: pytest.FixtureRequest, start_for_all: Start) -> Iterator[Running]:
    running = start_for_all(DRIVERS[request.param]())
    running.await_ready()
    program = base64.b64encode(PROGRAM.read_bytes()).decode()
    running.ask(
        f"echo {program} | base64 -d >/root/data-volume; chmod +x /root/data-volume\n"
        f"useradd --system svc-game; install -d -o svc-game -g svc-game -m 0750 {STATE}\n"
        "install -d /etc/amibuild/volumes"
    )
    yield running
    running.machine.kill()


def mount(machine: Running, volume: str) -> tuple[int, str, str]:
    return machine.run(
        f"echo {volume} >/etc/amibuild/volumes/game; VOLUME_WAIT_S=20 /root/data-volume game"
    )


def disk(folder: Path, content: bytes = b"") -> Path:
    path = folder / "extra.raw"
    with path.open("wb") as file:
        file.write(content)
        file.truncate(64 << 20)
    return path


def test_an_empty_volume_is_formatted_once_and_keeps_what_is_written(
    machine: Running, tmp_path: Path
) -> None:
    machine.machine.attach(DataVolume(EMPTY, disk(tmp_path)))
    code, out, err = mount(machine, EMPTY)
    assert code == 0, out + err
    assert "formatting" in out
    assert machine.ask(f"stat -c '%U %a' {STATE}") == "svc-game 750"
    options = machine.ask(f"findmnt --noheadings --output OPTIONS {STATE}").split(",")
    assert {"nosuid", "nodev"} <= set(options)
    machine.ask(f"echo kept >{STATE}/world; umount {STATE}")
    code, out, err = mount(machine, EMPTY)
    assert code == 0, out + err
    assert "formatting" not in out
    assert machine.ask(f"cat {STATE}/world; umount {STATE}") == "kept"


def test_a_volume_that_was_made_larger_is_used_in_whole(machine: Running, tmp_path: Path) -> None:
    larger = disk(tmp_path)
    proc.run(["mke2fs", "-q", "-t", "ext4", larger, "32M"])
    machine.machine.attach(DataVolume(LARGER, larger))
    code, out, err = mount(machine, LARGER)
    assert code == 0, out + err
    size_mib = int(machine.ask(f"findmnt --noheadings --bytes --output SIZE {STATE}")) >> 20
    machine.ask(f"umount {STATE}")
    assert size_mib > 40, out + err


def test_what_is_no_file_system_of_ours_is_left_as_it_is(machine: Running, tmp_path: Path) -> None:
    foreign = disk(tmp_path, FOREIGN_BYTES)
    before = foreign.read_bytes()
    machine.machine.attach(DataVolume(FOREIGN, foreign))
    code, _, _ = mount(machine, FOREIGN)
    assert code != 0
    assert machine.run(f"mountpoint --quiet {STATE}")[0] != 0
    assert foreign.read_bytes() == before


def test_a_volume_that_is_named_and_does_not_come_is_a_failure(machine: Running) -> None:
    code, _, err = mount(machine, ABSENT)
    assert code == 1
    assert f"{ABSENT} was named for game and did not come within 20 s" in err


@pytest.mark.parametrize("volume", ["vol-1; rm -rf /", "/dev/vda"])
def test_what_is_no_volume_id_is_refused(machine: Running, volume: str) -> None:
    code, _, err = machine.run(
        f"echo '{volume}' >/etc/amibuild/volumes/game; /root/data-volume game"
    )
    assert code == 1
    assert "is not the id of a volume" in err
