"""Machines under QEMU: firmware, the disk's own bootloader, its own kernel."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from time import monotonic

from amibuild import proc
from amibuild.errors import HostError, WaitTimeout
from amibuild.local.machines import network
from amibuild.local.machines.accelerator import EMULATOR, Accelerator, loses_changes
from amibuild.local.machines.base import (
    DataVolume,
    Driver,
    Machine,
    MachineSpec,
    MetadataHandler,
)
from amibuild.local.machines.console import CONSOLE_LIMIT, Reader
from amibuild.local.machines.emulation import MOST_RESETS, Pulse
from amibuild.local.machines.guest_agent import AgentGone, AgentSilent, GuestAgent, GuestCommand
from amibuild.local.machines.monitor import Monitor
from amibuild.local.machines.order import METADATA_ADDRESS, TAP_ADDRESS, Addresses, Isolation, Order
from amibuild.local.machines.qemu_argv import (
    Wiring,
    find_firmware,
    guest_network,
    plain_network,
    qemu_argv,
)
from amibuild.local.machines.qemu_volumes import QemuVolumes
from amibuild.local.machines.seed import write_seed_drive
from amibuild.local.machines.supervised import Supervised
from amibuild.wait import Look, until

log = logging.getLogger(__name__)

# Each question costs an emulated guest 65 ms: asked four times a second, a quarter of a CPU.
STILL_READY_S = 5.0
SYNC_S = 20.0


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
        if isolation() is Isolation.FULL:
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
        kind, addresses = isolation(), Addresses(index)
        ssh_port = 22 if kind is Isolation.FULL else _free_port(addresses.loopback)
        own_listeners: list[socket.socket] = []
        if kind is Isolation.PLAIN:
            own_listeners = [socket.create_server((addresses.loopback, 0))]
            metadata_port = own_listeners[0].getsockname()[1]
            net = plain_network(addresses.loopback, ssh_port, metadata_port, spec.endpoint_port)
        else:
            outside = addresses.machine if kind is Isolation.FULL else TAP_ADDRESS
            net = guest_network(index, outside, 22)
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
            network=net,
        )
        order = Order(
            instance_id=spec.instance_id,
            run_dir=str(run_dir),
            network_index=index,
            endpoint_port=spec.endpoint_port,
            isolation=kind,
            ssh_port=ssh_port,
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
            own_listeners=own_listeners,
        )
        volumes = QemuVolumes(button, spec)
        return QemuMachine(
            order,
            supervised,
            guest_agent,
            button,
            reader,
            volumes,
            revived=loses_changes(accelerator),
        )


def isolation() -> Isolation:
    """The best that this host allows this user."""
    if not sys.platform.startswith("linux"):
        return Isolation.PLAIN
    if os.geteuid() == 0:
        return Isolation.FULL
    # slirp4netns opens it; some hosts and most containers keep it for root.
    tun = os.access("/dev/net/tun", os.R_OK | os.W_OK)
    if not (tun and proc.which("slirp4netns") and proc.which("ip")):
        return Isolation.PLAIN
    try:
        proc.run(["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "true"])
    except HostError:  # no user namespaces here
        return Isolation.PLAIN
    return Isolation.USER


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
        volumes: QemuVolumes,
        *,
        revived: bool,
    ) -> None:
        """With `revived` it is reset when the emulator has killed its kernel."""
        addresses = order.addresses
        full = order.isolation is Isolation.FULL
        self.private_ip = addresses.machine if full else addresses.loopback
        self.ssh_port = order.ssh_port
        self._endpoint_port = order.endpoint_port
        self._supervised = supervised
        self._agent = agent
        self._monitor = monitor
        self._console = console
        self._lock = threading.Lock()
        self._volumes = volumes
        self._resets_when_ready = -1
        self._ask_again = 0.0
        self._door = _Door.CLOSED
        self._door_number = 0
        self._door_resets = -1
        self._lives = MOST_RESETS if revived else 0
        self._pulse = Pulse()

    def agent_ready(self) -> bool:
        if self._supervised.gone() or not self._lock.acquire(blocking=False):
            return False
        try:
            if self._resets_when_ready == self._monitor.resets and monotonic() < self._ask_again:
                return True
            resets = self._monitor.resets
            if not (self._agent.listening() and self._open_door()):
                self._revive()
                return False
            self._resets_when_ready, self._ask_again = resets, monotonic() + STILL_READY_S
            return True
        except (AgentSilent, AgentGone):
            self._revive()
            return False
        finally:
            self._lock.release()

    def _revive(self) -> None:
        if self._lives and (lost := self._pulse.lost(self._console.content())):
            self._lives -= 1
            log.warning("QEMU's emulation %s: it is reset", lost.value)
            with contextlib.suppress(HostError):  # it has ended
                self._monitor.reset()

    def execute(self, script: bytes, *, name: str) -> GuestCommand:
        return GuestCommand(self._agent, script, name)

    def shutdown(self) -> None:
        self._monitor.press_power_button()

    def kill(self) -> None:
        self._supervised.kill()

    def exited(self) -> bool:
        return self._supervised.gone()

    def attach(self, volume: DataVolume) -> None:
        self._volumes.plug(volume)

    def detach(self, volume_id: str) -> bool:
        return self._volumes.unplug(volume_id) if not self.exited() else True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        # What it has not written yet is lost, as on EC2: a silent agent is no reason to fail.
        with contextlib.suppress(HostError, WaitTimeout):
            number = self._agent.execute(("/bin/sync",), capture=False)
            until(
                lambda: Look("writing", self._agent.status(number).exited or None),
                what="the guest's sync",
                timeout_s=SYNC_S,
            )
        self._monitor.pause()
        try:
            yield
        finally:
            with contextlib.suppress(HostError):  # it has ended
                self._monitor.go_on()

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
