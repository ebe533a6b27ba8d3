"""The command lines of machines, and which kind of machine a launch gets."""

from __future__ import annotations

import os
import platform
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local.machines.accelerator import Acceleration, Accelerator, HostFacts
from amibuild.local.machines.base import MachineSpec
from amibuild.local.machines.nspawn import enter_argv, nspawn_argv
from amibuild.local.machines.processes import descendants, namespace_pids
from amibuild.local.machines.qemu_argv import (
    Firmware,
    Wiring,
    guest_network,
    plain_network,
    qemu_argv,
)

SPEC = MachineSpec(
    instance_id="i-0123456789abcdef0",
    disk=Path("/a folder, with a comma/disk.raw"),
    run_dir=Path("/run"),
    hostname="ip-10-213-0-2",
    public_key=None,
    user_data=None,
    network_index=3,
    cpus=2,
    memory_mib=1024,
    endpoint_port=4566,
)
WIRING = Wiring(
    firmware=Firmware(Path("/firmware/code.fd"), Path("/firmware/vars.fd")),
    variables=Path("/run/variables.fd"),
    seed=Path("/run/seed.img"),
    agent=5,
    monitor=6,
    console=7,
    network="user,id=net",
)


def options(argv: tuple[str, ...], name: str) -> list[str]:
    return [value for option, value in pairwise(argv) if option == name]


def test_an_nspawn_machine_never_has_the_hosts_network() -> None:
    argv = nspawn_argv(SPEC, Path("root"), Path("seed"), Path("devices"))
    assert "--network-namespace-path=/proc/self/ns/net" in argv
    assert "--register=no" in argv
    # After `--`, words go to the machine's init, and nspawn must not take them for its own.
    own, init = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    assert "--boot" in own
    assert "ds=nocloud;s=/run/amibuild/seed/" in init
    assert all(not word.startswith("-") for word in init)


def test_a_process_that_enters_a_machine_brings_nothing_of_our_environment() -> None:
    argv = enter_argv(4711, ("/bin/true",))
    assert argv[:2] == ["env", "-i"]
    assert argv[2].startswith("PATH=")
    assert argv[-2:] == ["--", "/bin/true"]


@pytest.mark.parametrize("accelerator", list(Accelerator))
def test_qemu_boots_the_disk_by_firmware_and_nothing_else(accelerator: Accelerator) -> None:
    argv = qemu_argv(SPEC, accelerator, WIRING)
    assert not {"-kernel", "-initrd", "-append"} & set(argv)
    drives = options(argv, "-drive")
    assert any("unit=0,readonly=on,file=/firmware/code.fd" in drive for drive in drives)
    assert any("unit=1,file=/run/variables.fd" in drive for drive in drives)
    assert any("file=/a folder,, with a comma/disk.raw" in drive for drive in drives)
    assert "virtio-blk-pci,drive=root,bootindex=0" in options(argv, "-device")


def test_the_guest_has_the_address_that_the_host_knows_it_by() -> None:
    network = guest_network(3, "10.213.0.26", 22)
    assert "dhcpstart=10.213.0.26," in network
    assert "net=10.213.0.24/29," in network
    assert network.endswith("hostfwd=tcp:10.213.0.26:22-10.213.0.26:22")


def test_without_namespaces_the_guests_imds_is_a_pipe_to_ours() -> None:
    network = plain_network("127.213.0.26", 40022, 40080, 4566)
    assert "hostfwd=tcp:127.213.0.26:40022-169.254.169.251:22" in network
    _, imds, api = network.split(",guestfwd=tcp:")
    assert imds.startswith("169.254.169.254:80-cmd:")
    assert shlex.split(imds.partition("-cmd:")[2])[-2:] == ["127.213.0.26", "40080"]
    assert api.startswith("169.254.169.254:4566-cmd:")
    assert shlex.split(api.partition("-cmd:")[2])[-2:] == ["127.0.0.1", "4566"]


def test_the_accelerator_is_remembered_for_this_kernel_and_qemu_only(tmp_path: Path) -> None:
    if Acceleration.candidate() is Accelerator.TCG:
        pytest.skip("nothing to try on this host")
    memory = tmp_path / "local" / "host.json"
    memory.parent.mkdir()
    version = proc.run(["qemu-system-x86_64", "--version"]).text.splitlines()[0]
    candidate = Acceleration.candidate()
    facts = HostFacts(kernel=platform.release(), qemu=version, accelerator=candidate)
    memory.write_text(facts.model_dump_json())
    # No disk to try: it did not.
    assert Acceleration(memory)(tmp_path / "no disk") is candidate
    memory.write_text(facts.model_copy(update={"qemu": "another"}).model_dump_json())
    with pytest.raises((HostError, OSError)):
        Acceleration(memory)(tmp_path / "no disk")


def test_the_tree_below_a_process_holds_its_children() -> None:
    child = proc.start(["sh", "-c", "sleep 60 & wait"])
    try:
        assert child.pid in descendants(os.getpid())
        assert descendants(child.pid)[0] == child.pid
        assert namespace_pids(child.pid)[0] == child.pid
    finally:
        for pid in reversed(descendants(child.pid)):
            os.kill(pid, 9)
        child.wait()
    assert descendants(child.pid) == ()
    assert namespace_pids(child.pid) == ()
