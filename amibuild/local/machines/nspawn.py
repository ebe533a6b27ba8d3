"""Machines as systemd-nspawn containers on their own disk file: native speed, the host's kernel.

The disk's root partition is mounted in the supervisor's mount namespace only, and the machine
shares the supervisor's network namespace: never the host's, whose firewall it would then rule.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local.disk import root_partition
from amibuild.local.machines import cgroups, network
from amibuild.local.machines.base import (
    DataVolume,
    Driver,
    Machine,
    MachineSpec,
    MetadataHandler,
)
from amibuild.local.machines.command import CANCELLED, OUTPUT_LIMIT, cancel_argv, launch_argv
from amibuild.local.machines.console import CONSOLE_LIMIT, Reader
from amibuild.local.machines.nspawn_volumes import NspawnVolumes, sync_loops
from amibuild.local.machines.order import BY_ID, DNS, Isolation, Order, Root
from amibuild.local.machines.processes import machine_init, supervisor_init
from amibuild.local.machines.seed import write_seed_folder
from amibuild.local.machines.supervised import Supervised

# With --keep-unit, nspawn leaves the restart after a reboot from inside to who started it.
REBOOT = 133
SEED = "/run/amibuild/seed"
PROGRAMS = ("systemd-nspawn", "slirp4netns", "ip", "mount", "nsenter")
# 121 s of boot with these two on, 1 s without: there is no link to wait for, and the root's
# mount options are the supervisor's.
MASKED = ("systemd-networkd-wait-online.service", "systemd-remount-fs.service")
# systemd takes SIGRTMIN+4 as `systemctl poweroff`, as the kernel's ACPI button ends up doing.
_POWEROFF = signal.SIGRTMIN + 4
_BUS = Path("run/dbus/system_bus_socket")
_CLEAN_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def nspawn_argv(spec: MachineSpec, root: Path, seed: Path, devices: Path) -> tuple[str, ...]:
    return (
        "systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        f"--machine={spec.instance_id}",
        f"--hostname={spec.hostname}",
        # The namespace of the caller, which the supervisor made; with its own capability, as
        # nspawn would only give it for a network that it makes itself.
        "--network-namespace-path=/proc/self/ns/net",
        "--capability=CAP_NET_ADMIN",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--register=no",
        "--keep-unit",
        "--console=read-only",
        f"--set-credential=network.dns:{DNS}",
        f"--bind-ro={seed}:{SEED}",
        f"--bind-ro={devices}:/dev/disk",
        "--boot",
        "--",
        *(f"systemd.mask={unit}" for unit in MASKED),
        f"ds=nocloud;s={SEED}/",
        "network-config=disabled",
    )


NSPAWN_ENVIRONMENT = (
    # Debian 13's systemd refuses the hybrid v1 hierarchy that nspawn would copy from some hosts.
    ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1"),
    # Its own network namespace's sysctls are the machine's to set, the rest of /proc/sys is not.
    ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network"),
)


class NspawnDriver:
    driver = Driver.NSPAWN

    def missing(self) -> tuple[str, ...]:
        if not sys.platform.startswith("linux"):
            return ("nspawn machines need Linux",)
        found = []
        if os.geteuid() != 0:
            found.append("nspawn machines need root")
        found += [f"{program} is not installed" for program in PROGRAMS if not proc.which(program)]
        if not Path("/dev/net/tun").exists():
            found.append("/dev/net/tun does not exist: no way out for machines")
        if not Path("/dev/loop-control").exists():
            found.append("/dev/loop-control does not exist: no loop devices here")
        return tuple(found)

    def start(self, spec: MachineSpec, metadata: MetadataHandler) -> Machine:
        run_dir = spec.run_dir.resolve()
        partition = root_partition(spec.disk)
        root, seed, devices = run_dir / "root", run_dir / "seed", run_dir / "devices"
        write_seed_folder(spec, seed)
        index, claim = network.claim(spec.network_index)
        console_read, console_write = os.pipe()
        order = Order(
            instance_id=spec.instance_id,
            run_dir=str(run_dir),
            network_index=index,
            endpoint_port=spec.endpoint_port,
            isolation=Isolation.FULL,
            ssh_port=22,
            argv=nspawn_argv(spec, root, seed, devices),
            environment=NSPAWN_ENVIRONMENT,
            inherit=(),
            console=console_write,
            root=Root(
                disk=str(spec.disk.resolve()),
                offset=partition.offset,
                size=partition.size,
                target=str(root),
                devices=str(devices),
            ),
            own_cgroup=True,
            restart_code=REBOOT,
        )
        console = Reader(
            console_read, limit=CONSOLE_LIMIT, keep_first=False, name=f"console-{spec.instance_id}"
        )
        volumes = NspawnVolumes(lambda: machine.open_devices())
        supervised = Supervised.start(
            order,
            metadata,
            handed_over=(console_write, claim.detach()),
            when_gone=volumes.close,
        )
        machine = NspawnMachine(order, supervised, console, volumes)
        try:
            for volume in spec.volumes:
                machine.attach(volume)
        except BaseException:
            machine.kill()
            raise
        return machine


class NspawnMachine:
    driver = Driver.NSPAWN
    ssh_port = 22

    def __init__(
        self, order: Order, supervised: Supervised, console: Reader, volumes: NspawnVolumes
    ) -> None:
        self.private_ip = order.addresses.machine
        self._instance_id = order.instance_id
        self._supervised = supervised
        self._console = console
        self._devices = order.root.devices if order.root else ""
        self._volumes = volumes

    def agent_ready(self) -> bool:
        leader = self._leader()
        # Its own PID 1 listens there shortly before it starts services.
        return leader is not None and Path(f"/proc/{leader}/root", _BUS).exists()

    def execute(self, script: bytes, *, name: str) -> NspawnCommand:
        leader = self._leader()
        if leader is None:
            raise HostError("the machine is not running")
        return NspawnCommand(self, leader, script, name)

    def shutdown(self) -> None:
        leader = self._leader()
        if leader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, _POWEROFF)

    def kill(self) -> None:
        self._supervised.kill()

    def exited(self) -> bool:
        return self._supervised.gone()

    def attach(self, volume: DataVolume) -> None:
        self._volumes.plug(volume)

    def detach(self, volume_id: str) -> bool:
        return self._volumes.unplug(volume_id)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        leader = self._leader()
        if leader is None:
            raise HostError("the machine is not running")
        sync_loops(leader)  # most of it, while it still runs
        with cgroups.frozen(self._instance_id, self._supervised.pid):
            sync_loops(leader)
            yield

    def console(self) -> bytes:
        return self._console.content()

    def host_pids(self) -> tuple[int, ...]:
        return self._supervised.pids()

    def _leader(self) -> int | None:
        return machine_init(self._supervised.pids())

    def open_devices(self) -> int:
        """The folder of its volumes' nodes, in the supervisor's mounts. Raises: OSError."""
        supervisor = supervisor_init(self._supervised.pids())
        if supervisor is None:
            raise ProcessLookupError("the machine is not running")
        path = Path(f"/proc/{supervisor}/root{self._devices}", BY_ID)
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def enter_argv(leader: int, argv: tuple[str, ...]) -> list[str]:
    """Without our environment: a machine's root can read that of any process in it."""
    nsenter = str(proc.which("nsenter") or "nsenter")
    return ["env", "-i", _CLEAN_PATH, nsenter, f"--target={leader}", "--all", "--", *argv]


class NspawnCommand:
    """A client process on the host, whose unit runs inside."""

    def __init__(self, machine: NspawnMachine, leader: int, script: bytes, name: str) -> None:
        self._leader = leader
        self._name = name
        self._cancelled = threading.Event()
        code_read, code_write = os.pipe()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        stdin, script_end = socket.socketpair()
        argv = launch_argv(name, script, report=f"/proc/self/fd/{code_write}")
        try:
            self._client = proc.start(
                enter_argv(leader, argv),
                stdin=stdin.fileno(),
                stdout=out_write,
                stderr=err_write,
                pass_fds=(code_write,),
            )
        except BaseException:
            for descriptor in (code_read, out_read, err_read):
                os.close(descriptor)
            script_end.close()
            raise
        finally:
            stdin.close()
            for descriptor in (code_write, out_write, err_write):
                os.close(descriptor)
        proc.never_stops(self._client)
        self._code = Reader(code_read, limit=16, keep_first=True, name=f"{name}-code")
        self._out = Reader(out_read, limit=OUTPUT_LIMIT, keep_first=True, name=f"{name}-stdout")
        self._err = Reader(err_read, limit=OUTPUT_LIMIT, keep_first=True, name=f"{name}-stderr")
        threading.Thread(
            target=_feed, args=(script_end, script), name=f"{name}-script", daemon=True
        ).start()

    def poll(self) -> int | None:
        if self._client.poll() is None:
            return None
        if not (self._out.ended(1) and self._err.ended(1) and self._code.ended(1)):
            return None
        code = self._code.content().strip()
        if code.isdigit():
            return int(code)
        if self._cancelled.is_set():
            return CANCELLED
        said = self._err.content().decode(errors="replace").strip()[-500:]
        raise HostError(f"the machine went away while {self._name} ran on it: {said}")

    def output(self) -> tuple[bytes, bytes]:
        return self._out.content(), self._err.content()

    def cancel(self) -> None:
        if self._client.poll() is not None or self._cancelled.is_set():
            return
        self._cancelled.set()
        client = proc.start(enter_argv(self._leader, cancel_argv(self._name)))
        proc.never_stops(client)
        # Nobody asks for the end of one that was cancelled.
        threading.Thread(
            target=_wait_for, args=(client, self._client), name=f"{self._name}-cancel", daemon=True
        ).start()


def _wait_for(*processes: proc.Process) -> None:
    for process in processes:
        process.wait()


def _feed(connection: socket.socket, content: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        connection.sendall(content)
