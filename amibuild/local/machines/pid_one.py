"""PID 1 of a machine's namespaces: sets them up, starts the machine, waits for its end.

Forked by the keeper (supervisor.py). When it ends, for any reason, the kernel ends everything in
its pid namespace and drops its mounts and its network.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import NoReturn

from amibuild import proc
from amibuild.errors import AmibuildError, HostError
from amibuild.local.machines import cgroups, kernel, network
from amibuild.local.machines.kernel import MountFlag, Namespace
from amibuild.local.machines.order import BY_ID, DNS, Isolation, Order, Root, Stage, message


def run(
    order: Order, control: socket.socket, keeper: socket.socket, groups: tuple[Path, ...]
) -> NoReturn:
    """Never returns, so that the fork's two sides cannot be confused."""
    code = 1
    try:
        kernel.die_with_parent()
        cgroups.enter(groups)
        _prepare(order, control, keeper)
        machine = _start(order)
        control.send(message(Stage.STARTED))
        control.close()
        while (code := _reap_until_gone(machine)) == order.restart_code:
            network.forget_firewall()
            machine = _start(order)
        if order.root is not None:
            with contextlib.suppress(OSError):  # busy: it goes with the namespace
                kernel.unmount(order.root.target)
    except (AmibuildError, OSError) as error:
        text = error.message if isinstance(error, AmibuildError) else str(error)
        with contextlib.suppress(OSError):
            control.send(message(Stage.FAILED, text))
    finally:
        os._exit(code)


def _prepare(order: Order, control: socket.socket, keeper: socket.socket) -> None:
    kernel.unshare(Namespace.MOUNT | Namespace.NET | Namespace.IPC | Namespace.UTS)
    # Slave, not private: when the host unmounts something, our copy of it must not hold it.
    kernel.mount("none", "/", None, MountFlag.RECURSIVE | MountFlag.SLAVE)
    inside = network.listen_inside(order)
    # Both write to the endpoint, which waits for the keeper's word first: on a busy host ours came
    # before it, and the machine was given up.
    if keeper.recv(16) != b"told":
        raise HostError("the keeper has ended")
    socket.send_fds(control, [message(Stage.LISTENING)], [s.fileno() for s in inside])
    for listener in inside:
        listener.close()
    own_network = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(keeper, [b"network"], [own_network])
    os.close(own_network)
    if keeper.recv(16) != b"go":
        raise HostError("the machine's network could not be set up")
    if order.isolation is Isolation.FULL:
        network.configure_inside(order.addresses)
    _mounts(order)


def _start(order: Order) -> proc.Process:
    machine = proc.start(
        order.argv,
        stdout=order.console if order.console is not None else 2,
        stderr=2,
        env=dict(order.environment),
        pass_fds=order.inherit,
    )
    if order.restart_code is None:
        for descriptor in order.handed_on:
            os.close(descriptor)
    return machine


def _mounts(order: Order) -> None:
    if order.root is None:
        # QEMU hands the guest's questions to the first server of this file, and the host's own
        # may be on the host's loopback, where nothing from here gets to.
        resolv = Path(order.run_dir, "resolv.conf")
        resolv.write_text(f"nameserver {DNS}\n")
        kernel.mount(str(resolv), os.path.realpath("/etc/resolv.conf"), None, MountFlag.BIND)
        return
    quiet = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
    # nspawn looks its children up in /proc by the numbers that they have here.
    kernel.mount("proc", "/proc", "proc", quiet)
    # It leaves /run/systemd/nspawn/propagate/NAME behind, on this tmpfs instead of the host.
    Path("/run/systemd").mkdir(exist_ok=True)
    kernel.mount("tmpfs", "/run/systemd", "tmpfs", quiet, "mode=755")
    # No NODEV: the nodes in it are the machine's disks, and it can't make others there.
    Path(order.root.devices).mkdir(exist_ok=True)
    memory = MountFlag.NOSUID | MountFlag.NOEXEC
    kernel.mount("tmpfs", order.root.devices, "tmpfs", memory, "mode=755,size=64k")
    Path(order.root.devices, BY_ID).mkdir()
    _mount_root(order.root)


def _mount_root(root: Root) -> None:
    Path(root.target).mkdir(exist_ok=True)
    # barrier=0: a machine does not outlive its host, so an fsync inside need not wait for the
    # host's disk; everything is in the file's cache once it is unmounted.
    options = f"loop,offset={root.offset},sizelimit={root.size},barrier=0"
    proc.run(["mount", "-t", "ext4", "-o", options, root.disk, root.target])


def _reap_until_gone(machine: proc.Process) -> int:
    """As PID 1 it inherits orphans, and must wait for them too."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == machine.pid:
            machine.returncode = os.waitstatus_to_exitcode(status)
            return machine.returncode if machine.returncode >= 0 else 1
