"""Machines under QEMU: firmware, the disk's own bootloader, its own kernel."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local.machines import network
from amibuild.local.machines.accelerator import EMULATOR, Accelerator
from amibuild.local.machines.base import Driver, Machine, MachineSpec, MetadataHandler
from amibuild.local.machines.console import CONSOLE_LIMIT, Reader
from amibuild.local.machines.guest_agent import AgentGone, AgentSilent, GuestAgent, GuestCommand
from amibuild.local.machines.monitor import Monitor
from amibuild.local.machines.order import METADATA_ADDRESS, TAP_ADDRESS, Addresses, Order
from amibuild.local.machines.seed import write_seed_drive
from amibuild.local.machines.supervised import Supervised

AGENT_PORT = "org.qemu.guest_agent.0"
SLOTS = ("slot1", "slot2")


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


def qemu_argv(spec: MachineSpec, accelerator: Accelerator, wiring: Wiring) -> tuple[str, ...]:
    machine = {
        Accelerator.KVM: ("q35,accel=kvm", "host"),
        Accelerator.HVF: ("q35,accel=hvf", "host"),
        Accelerator.TCG: ("q35", "max"),
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
        # Where a second disk can be plugged in while it runs: not into the root complex itself.
        *(
            word
            for number, slot in enumerate(SLOTS, start=1)
            for word in ("-device", f"pcie-root-port,id={slot},chassis={number}")
        ),
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


class QemuDriver:
    driver = Driver.QEMU

    def __init__(self, accelerator: Callable[[Path], Accelerator] | None = None) -> None:
        self._accelerator = accelerator or (lambda _: Accelerator.TCG)

    def missing(self) -> tuple[str, ...]:
        found = [
            f"{program} is not installed"
            for program in (EMULATOR, "mkfs.vfat", "mcopy")
            if proc.which(program) is None
        ]
        if find_firmware() is None:
            found.append("the UEFI firmware OVMF is not installed")
        if sys.platform.startswith("linux") and os.geteuid() == 0:
            found += [
                f"{program} is not installed"
                for program in ("slirp4netns", "ip")
                if proc.which(program) is None
            ]
        return tuple(found)

    def start(self, spec: MachineSpec, metadata: MetadataHandler) -> Machine:
        firmware = find_firmware()
        if firmware is None:
            raise HostError("the UEFI firmware OVMF is not installed", hint="amibuild doctor")
        run_dir = spec.run_dir.resolve()
        variables, seed = run_dir / "variables.fd", run_dir / "seed.img"
        # Fresh for each machine: those of another end in the firmware's shell.
        shutil.copyfile(firmware.variables, variables)
        write_seed_drive(spec, seed)
        accelerator = self._accelerator(spec.disk)
        index, claim = network.claim(spec.network_index)
        privileged = os.geteuid() == 0
        addresses = Addresses(index)
        forward = addresses.machine if privileged else TAP_ADDRESS
        agent, agent_far = socket.socketpair()
        monitor, monitor_far = socket.socketpair()
        console, console_far = socket.socketpair()
        wiring = Wiring(
            firmware=firmware,
            variables=variables,
            seed=seed,
            agent=agent_far.fileno(),
            monitor=monitor_far.fileno(),
            console=console_far.fileno(),
            network=guest_network(index, forward, 22),
        )
        order = Order(
            instance_id=spec.instance_id,
            run_dir=str(run_dir),
            network_index=index,
            endpoint_port=spec.endpoint_port,
            privileged=privileged,
            ssh_port=22 if privileged else _free_port(addresses.loopback),
            argv=qemu_argv(spec, accelerator, wiring),
            environment=(),
            inherit=(wiring.agent, wiring.monitor, wiring.console),
            console=None,
            root=None,
            own_cgroup=False,
            restart_code=None,
        )
        guest_agent = GuestAgent(agent)
        button = Monitor(monitor, name=spec.instance_id)
        reader = Reader(
            console.detach(),
            limit=CONSOLE_LIMIT,
            keep_first=False,
            name=f"console-{spec.instance_id}",
        )

        def close() -> None:
            guest_agent.close()
            button.close()

        supervised = Supervised.start(
            order,
            metadata,
            handed_over=(
                agent_far.detach(),
                monitor_far.detach(),
                console_far.detach(),
                claim.detach(),
            ),
            when_gone=close,
        )
        return QemuMachine(order, supervised, guest_agent, button, reader)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class QemuMachine:
    driver = Driver.QEMU

    def __init__(
        self,
        order: Order,
        supervised: Supervised,
        agent: GuestAgent,
        monitor: Monitor,
        console: Reader,
    ) -> None:
        addresses = order.addresses
        self.private_ip = addresses.machine if order.privileged else addresses.loopback
        self.ssh_port = order.ssh_port
        self._endpoint_port = order.endpoint_port
        self._supervised = supervised
        self._agent = agent
        self._monitor = monitor
        self._console = console
        self._lock = threading.Lock()
        self._slots = list(SLOTS)
        self._door = _Door.CLOSED
        self._door_number = 0
        self._door_resets = -1

    def agent_ready(self) -> bool:
        if self._supervised.gone() or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._agent.listening() and self._open_door()
        except (AgentSilent, AgentGone):
            return False
        finally:
            self._lock.release()

    def execute(self, script: bytes, *, name: str) -> GuestCommand:
        return GuestCommand(self._agent, script, name)

    def shutdown(self) -> None:
        self._monitor.press_power_button()

    def kill(self) -> None:
        self._supervised.kill()

    def exited(self) -> bool:
        return self._supervised.gone()

    def attach(self, disk: Path, volume_id: str) -> None:
        with self._lock:
            if not self._slots:
                raise HostError(f"a machine takes {len(SLOTS)} more disks, and has them")
            self._monitor.plug_in(disk.resolve(), volume_id.replace("-", ""), slot=self._slots[0])
            del self._slots[0]

    def console(self) -> bytes:
        return self._console.content()

    def host_pids(self) -> tuple[int, ...]:
        return self._supervised.pids()

    def _open_door(self) -> bool:
        """Makes the API's port answer on the guest's own 127.0.0.1, after each boot anew.

        A transient socket unit, so that nothing of it is on the disk; 169.254.169.254 leads out.
        """
        resets = self._monitor.resets
        if self._door is _Door.OPEN and self._door_resets == resets:
            return True
        if self._door is not _Door.OPENING or self._door_resets != resets:
            self._door_number = self._agent.execute(door_argv(self._endpoint_port), capture=False)
            self._door, self._door_resets = _Door.OPENING, resets
        status = self._agent.status(self._door_number)
        if not status.exited:
            return False
        self._door = _Door.OPEN if status.exit_code == 0 else _Door.CLOSED
        return self._door is _Door.OPEN


class _Door(StrEnum):
    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"


def door_argv(port: int) -> tuple[str, ...]:
    return (
        "/usr/bin/systemd-run",
        "--quiet",
        "--collect",
        "--unit=amibuild-endpoint",
        f"--socket-property=ListenStream=127.0.0.1:{port}",
        "/usr/lib/systemd/systemd-socket-proxyd",
        f"{METADATA_ADDRESS}:{port}",
    )
