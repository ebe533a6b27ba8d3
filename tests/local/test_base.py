"""The base image, really made: what is on its disk, and what a killed maker leaves."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild import proc, wait
from amibuild.local import debian, disk
from amibuild.local.base import ensure_base
from amibuild.local.machines.base import MachineSpec, MetadataRequest, MetadataResponse
from amibuild.local.machines.nspawn import NspawnDriver
from amibuild.local.store import ImageRecord, Store

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into disks, which needs root"),
]
ROOT = Path(__file__).parents[2]

MAKE = """
import sys
from pathlib import Path
from amibuild.local.base import ensure_base
from amibuild.local.store import Store
folder = Path(sys.argv[1])
with Store.open(folder / "store") as store:
    ensure_base(store, folder / "base", progress=lambda told: print(told, flush=True))
"""


@pytest.fixture(scope="module")
def base(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The base image's disk, out of a store of its own; the cache is shared with other tests."""
    folder = tmp_path_factory.mktemp("base")
    with Store.open(folder / "store") as store:
        image = ensure_base(store, data_dir / "local" / "base", progress=lambda _: None)
        assert isinstance(image, ImageRecord)
        assert image.snapshot_id is not None
        store.materialise(image.snapshot_id, folder / "disk", size_gib=image.volume_size_gib)
    yield folder / "disk"
    (folder / "disk").unlink()


def ask(disk_file: Path, script: str) -> list[str]:
    """The lines that a shell script in the root of the disk prints."""
    mount_point = disk_file.parent / "mounted"
    mount_point.mkdir(exist_ok=True)
    words = ["sh", "-euc", f'cd "$1"\n{script}', "sh", str(mount_point)]
    return disk.on_root(disk_file, mount_point, words).text.splitlines()


def test_the_disk_carries_no_identity_and_nothing_of_its_making(base: Path) -> None:
    assert ask(base, "stat -c %s etc/machine-id; cat etc/hostname") == ["0", "localhost"]
    assert ask(base, "find etc/ssh -name 'ssh_host_*'; find root -name '*history'") == []
    assert ask(base, "find var/lib/dbus/machine-id var/lib/systemd/random-seed || true") == []
    assert ask(base, "find var/lib/apt/lists var/cache/apt -type f ! -name lock") == []
    assert ask(base, "find var/log -type f; find tmp var/tmp -mindepth 1") == []
    assert ask(base, "find . -xdev -name policy-rc.d") == []
    assert set(ask(base, "cut -d: -f2 etc/shadow")) == {"!", "!*", "*"}
    assert ask(base, "awk -F: '$3 >= 1000 && $3 < 65000' etc/passwd") == []


def test_the_disk_boots_the_newest_kernel_that_is_installed(base: Path) -> None:
    kernel, initramfs = ask(base, "readlink -e vmlinuz initrd.img")
    assert "-cloud-amd64" in kernel
    assert kernel.replace("vmlinuz", "initrd.img") == initramfs
    lines = ask(base, "cat boot/grub/grub.cfg")
    assert "    linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200n8" in lines


def test_the_disk_knows_the_platform_and_debians_archives(base: Path) -> None:
    assert ask(base, "cat usr/share/amibuild-platform/agent") == [debian.PLATFORM_AGENT]
    sources = ask(base, "cut -d' ' -f3- etc/apt/sources.list")
    assert sources == ["trixie main", "trixie-updates main", "trixie-security main"]


def test_a_machine_of_it_reaches_debians_archives(base: Path, tmp_path: Path) -> None:
    driver = NspawnDriver()
    if missing := driver.missing():
        pytest.skip("; ".join(missing))
    run_dir = tmp_path / "machine"
    run_dir.mkdir()
    spec = MachineSpec(
        instance_id="i-0123456789abcdef0",
        disk=base,
        run_dir=run_dir,
        hostname="ip-10-0-0-1",
        public_key=None,
        user_data=None,
        network_index=16000 + secrets.randbelow(300),
        cpus=2,
        memory_mib=1024,
        endpoint_port=9,
    )
    machine = driver.start(spec, _no_metadata)
    try:
        wait.until(
            lambda: wait.Look("booting", True if machine.agent_ready() else None),
            what="the machine",
            timeout_s=60,
        )
        script = (
            b"#!/bin/sh\nset -eu\nsystemctl is-system-running --wait\ncloud-init status --wait\n"
            b"id -nG admin\napt-get -qq update\napt-cache policy nano | grep Candidate\n"
        )
        command = machine.execute(script, name="ask")
        code = wait.until(
            lambda: wait.Look("running", command.poll()), what="the script", timeout_s=120
        )
        out, err = command.output()
    finally:
        machine.kill()
    assert code == 0, out + err
    lines = out.decode().splitlines()
    assert "running" in lines
    assert any(line.startswith("status: done") for line in lines)
    assert any("sudo" in line.split() for line in lines)
    assert "(none)" not in lines[-1]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_maker_leaves_no_process_and_no_image(
    tmp_path: Path, end: signal.Signals
) -> None:
    reading, writing = os.pipe()
    words = [sys.executable, "-c", MAKE, str(tmp_path)]
    process = proc.start(words, stdout=writing, env={"PYTHONPATH": str(ROOT)})
    os.close(writing)
    with os.fdopen(reading) as told:
        for line in told:
            if line.startswith("unpacking"):
                break
        process.send_signal(end)
        process.wait()

    def look() -> wait.Look[bool]:
        left = _processes_that_name(tmp_path)
        return wait.Look(f"{left}", None if left else True)

    assert wait.until(look, what="its processes to end", timeout_s=10)
    if end == signal.SIGINT:
        assert [path.name for path in (tmp_path / "base").iterdir()] == ["lock"]
    assert not list((tmp_path / "base").glob("*.raw"))
    with Store.open(tmp_path / "store") as store:
        assert (store.images(), store.snapshots(), store.usage().blocks) == ((), (), 0)


def _no_metadata(_: MetadataRequest) -> MetadataResponse:
    return MetadataResponse(404)


def _processes_that_name(path: Path) -> list[str]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(path).encode() in words:
            found.append(command.parent.name)
    return found
