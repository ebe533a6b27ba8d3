"""QEMU's command line for a machine: firmware, disks, network, channels. Pure, but for a look for
the firmware, and one at what a volume's file system can do."""

from __future__ import annotations

import base64
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from amibuild.local.machines import pipe
from amibuild.local.machines.accelerator import EMULATOR, Accelerator
from amibuild.local.machines.base import DataVolume, MachineSpec
from amibuild.local.machines.order import METADATA_ADDRESS, Addresses

AGENT_PORT = "org.qemu.guest_agent.0"
# Where a disk can be plugged in while the machine runs, besides those of the volumes at its start.
SPARE_SLOTS = 4
# The names that volumes have on EC2's Nitro, made by the guest's own udev (systemd 256 or later)
# from what the firmware's tables carry: nothing of it is on the image's disk.
_UDEV_RULE = (
    'SUBSYSTEM=="block", KERNEL=="vd*", ENV{ID_SERIAL}=="vol*", ENV{DEVTYPE}=="disk", '
    'SYMLINK+="disk/by-id/nvme-Amazon_Elastic_Block_Store_$env{ID_SERIAL}"\n'
    'SUBSYSTEM=="block", KERNEL=="vd*", ENV{ID_SERIAL}=="vol*", ENV{DEVTYPE}=="partition", '
    'SYMLINK+="disk/by-id/nvme-Amazon_Elastic_Block_Store_$env{ID_SERIAL}-part%n"\n'
)
# udev has a unit of its own for this, but a program costs 2 s of an emulated boot, and a mount in
# the namespace that udev has anyway none. A service sees its own credentials only.
_UDEV_DROPIN = (
    "[Service]\nImportCredential=amibuild.volumes\n"
    "BindReadOnlyPaths=-/run/credentials/systemd-udevd.service/amibuild.volumes"
    ":/run/udev/rules.d/80-amibuild-volumes.rules\n"
)
CREDENTIALS = {
    "amibuild.volumes": _UDEV_RULE,
    "systemd.unit-dropin.systemd-udevd.service": _UDEV_DROPIN,
}


@dataclass(frozen=True)
class Firmware:
    code: Path
    variables: Path


# Debian and Ubuntu, Fedora, Arch, Homebrew.
FIRMWARE = (
    Firmware(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    Firmware(Path("/usr/share/OVMF/OVMF_CODE.fd"), Path("/usr/share/OVMF/OVMF_VARS.fd")),
    Firmware(Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"), Path("/usr/share/edk2/ovmf/OVMF_VARS.fd")),
    Firmware(
        Path("/usr/share/edk2/x64/OVMF_CODE.4m.fd"), Path("/usr/share/edk2/x64/OVMF_VARS.4m.fd")
    ),
    Firmware(
        Path("/opt/homebrew/share/qemu/edk2-x86_64-code.fd"),
        Path("/opt/homebrew/share/qemu/edk2-i386-vars.fd"),
    ),
    Firmware(
        Path("/usr/local/share/qemu/edk2-x86_64-code.fd"),
        Path("/usr/local/share/qemu/edk2-i386-vars.fd"),
    ),
)


def find_firmware() -> Firmware | None:
    return next((f for f in FIRMWARE if f.code.exists() and f.variables.exists()), None)


@dataclass(frozen=True)
class Wiring:
    """What differs from machine to machine besides its spec: files, and descriptors by number."""

    firmware: Firmware
    variables: Path
    seed: Path
    agent: int
    monitor: int
    console: int
    network: str


def slots(spec: MachineSpec) -> tuple[str, ...]:
    """The names of all slots; the first ones hold `spec.volumes`."""
    return tuple(f"slot{n}" for n in range(1, len(spec.volumes) + SPARE_SLOTS + 1))


def volume_drive(volume: DataVolume, slot: str) -> dict[str, object]:
    """Arguments of blockdev-add. Source: QEMU QMP Reference Manual, BlockdevOptions."""
    path = str(volume.disk.resolve())
    return {
        "driver": "raw",
        "node-name": f"disk-{slot}",
        "file": {"driver": "file", "filename": path, "aio": "threads", "discard": "unmap"},
        "discard": "unmap",
        "cache": {"no-flush": True, "direct": _can_pass_cache(path)},
    }


def _can_pass_cache(path: str) -> bool:
    """A volume is read whole, once, and mostly holes: the cache would be filled with zeros.

    Not every file system can.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def volume_device(volume: DataVolume, slot: str) -> dict[str, object]:
    """Arguments of device_add."""
    return {
        "driver": "virtio-blk-pci",
        "id": f"plugged-{slot}",
        "drive": f"disk-{slot}",
        "serial": volume.serial,
        "bus": slot,
    }


def _volume_words(spec: MachineSpec) -> tuple[str, ...]:
    words: list[str] = []
    # Not into the root complex itself, where nothing can be plugged in or out.
    for number, slot in enumerate(slots(spec), start=1):
        words += ["-device", f"pcie-root-port,id={slot},chassis={number}"]
    for volume, slot in zip(spec.volumes, slots(spec), strict=False):
        words += ["-blockdev", json.dumps(volume_drive(volume, slot))]
        words += ["-device", json.dumps(volume_device(volume, slot))]
    for name, text in CREDENTIALS.items():
        encoded = base64.b64encode(text.encode()).decode()
        words += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={encoded}"]
    return tuple(words)


def guest_network(index: int, forward_address: str, forward_port: int) -> str:
    """QEMU's own network for the guest, whose address there is the one the host knows it by.

    A connection that the guest makes is made anew by QEMU, in the namespace that QEMU runs in:
    that is how 169.254.169.254 leads to our listener there.
    """
    addresses = Addresses(index)
    return (
        f"user,id=net,ipv6=off,net={addresses.network},host={addresses.host},"
        f"dns={addresses.dns},dhcpstart={addresses.machine},"
        f"hostfwd=tcp:{forward_address}:{forward_port}-{addresses.machine}:22"
    )


def plain_network(address: str, ssh_port: int, metadata_port: int, endpoint_port: int) -> str:
    """The same where QEMU has the host's own network: 169.254.169.254 is part of the guest's net.

    The host's loopback is reachable from inside, at the gateway: what namespaces are for.
    """
    doors = {80: metadata_port, endpoint_port: endpoint_port}
    commands = {
        port: shlex.join(
            [
                *(sys.executable, "-I", "-S", pipe.__file__),
                *(address if port == 80 else "127.0.0.1", str(behind)),
            ]
        )
        for port, behind in doors.items()
    }
    return (
        "user,id=net,ipv6=off,net=169.254.169.248/29,host=169.254.169.249,"
        "dns=169.254.169.250,dhcpstart=169.254.169.251,"
        f"hostfwd=tcp:{address}:{ssh_port}-169.254.169.251:22"
        + "".join(
            f",guestfwd=tcp:{METADATA_ADDRESS}:{port}-cmd:{command.replace(',', ',,')}"
            for port, command in commands.items()
        )
    )


def qemu_argv(spec: MachineSpec, accelerator: Accelerator, wiring: Wiring) -> tuple[str, ...]:
    machine = {
        Accelerator.KVM: ("q35,accel=kvm", "host"),
        Accelerator.HVF: ("q35,accel=hvf", "host"),
        # Without "fast" string instructions: emulated, they go byte by byte, and a kernel that sees
        # them clears and copies all its pages so. 54 s of CPU time to the end of cloud-init
        # instead of 61 s, measured in turns; models with fewer features gained nothing more.
        Accelerator.TCG: ("q35", "max,-erms,-fsrm"),
    }[accelerator]
    tcg = ("-accel", "tcg,thread=multi") if accelerator is Accelerator.TCG else ()
    firmware = "if=pflash,format=raw"
    # A throwaway disk: nobody waits for the host's disk, and a crash of the host ends it anyway.
    disk = "if=none,format=raw,cache=unsafe,aio=threads,discard=unmap"
    return (
        EMULATOR,
        "-nodefaults",
        "-no-user-config",
        *("-name", spec.instance_id),
        *("-display", "none"),
        *("-machine", machine[0]),
        *tcg,
        *("-cpu", machine[1]),
        *("-smp", str(spec.cpus)),
        *("-m", str(spec.memory_mib)),
        *("-drive", f"{firmware},unit=0,readonly=on,file={_option(wiring.firmware.code)}"),
        *("-drive", f"{firmware},unit=1,file={_option(wiring.variables)}"),
        *("-drive", f"{disk},id=root,file={_option(spec.disk.resolve())}"),
        *("-device", "virtio-blk-pci,drive=root,bootindex=0"),
        *("-drive", f"if=none,format=raw,readonly=on,id=seed,file={_option(wiring.seed)}"),
        *("-device", "virtio-blk-pci,drive=seed"),
        *("-netdev", wiring.network),
        # Without its boot ROM: the firmware would try the network.
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *_volume_words(spec),
        *("-device", "virtio-rng-pci"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,fd={wiring.agent}"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *("-chardev", f"socket,id=monitor,fd={wiring.monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=console,fd={wiring.console}"),
        *("-serial", "chardev:console"),
    )


def _option(path: Path) -> str:
    """A path inside an option of QEMU, where a comma ends the value."""
    return str(path).replace(",", ",,")
