"""The process between the endpoint and one machine: `python -m … FD`, a socket to the endpoint.

Two processes of one program:

    endpoint ── socket ── keeper (host's namespaces) ── PID 1 (the machine's namespaces) ── machine
                              └── slirp4netns (host's network, PID 1's pid namespace)

The keeper waits for the socket's end (the endpoint closed it, or died, even by kill -9), for PID
1's or slirp4netns', kills PID 1, with which the kernel ends every process, mount and interface of
the machine, and removes what the kernel leaves: control groups. Once the keeper is gone, all is;
when the keeper itself was killed, PID 1 dies with it, and the endpoint does the rest (remains.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

from amibuild import proc
from amibuild.errors import AmibuildError
from amibuild.local import private
from amibuild.local.machines import cgroups, kernel, network, pid_one, remains
from amibuild.local.machines.order import Isolation, Order, Stage, message

ORDER_LIMIT = 1 << 20


def main(control: socket.socket) -> int:
    raw = control.recv(ORDER_LIMIT)
    if not raw:  # the endpoint died before it said what to do
        return 1
    order = Order.decode(raw)
    os.chdir(order.run_dir)
    groups: tuple[Path, ...] = ()
    try:
        if order.isolation is Isolation.PLAIN:
            _keep_plain(order, control)
            return 0
        if order.own_cgroup:
            groups = cgroups.create(order.instance_id)
        _keep(order, control, groups)
    except (AmibuildError, OSError) as error:
        _tell_failure(control, error)
        return 1
    finally:
        remains.remove(order, os.getpid())
    return 0


def _keep(order: Order, control: socket.socket, groups: tuple[Path, ...]) -> None:
    """From the fork of PID 1 to its end."""
    host_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
    if order.isolation is Isolation.USER:
        _become_root_of_a_user_namespace()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernel.unshare(kernel.Namespace.PID)
    machine = os.fork()
    if machine == 0:
        near.close()
        pid_one.run(order, control, far, groups)
    far.close()
    for descriptor in order.handed_on:
        os.close(descriptor)
    slirp: proc.Process | None = None
    ends: list[socket.socket | int] = [control, near]
    try:
        _hand_over(control, machine)
        near.send(b"told")
        _, descriptors, _, _ = socket.recv_fds(near, 16, 1)
        if descriptors:
            # Still forking into PID 1's pid namespace: slirp4netns dies with it.
            slirp = network.start_slirp(order, descriptors[0])
            ends.append(os.pidfd_open(slirp.pid))
            os.close(descriptors[0])
            if order.isolation is Isolation.FULL:
                kernel.enter(host_pids)
                network.join_host(order.addresses, machine)
            else:
                network.forward_ssh(order)
            near.send(b"go")
        ended, _, _ = select.select(ends, [], [])
        if ended == ends[2:]:
            print("slirp4netns died, the machine's only way out", file=sys.stderr)  # noqa: T201
    finally:
        # PID 1's end waits for slirp4netns to be waited for: its parent is out here.
        os.kill(machine, signal.SIGKILL)
        if slirp is not None:
            slirp.kill()
            slirp.wait()
        os.waitpid(machine, 0)
        if order.isolation is Isolation.FULL:
            kernel.enter(host_pids)
        os.close(host_pids)


def _keep_plain(order: Order, control: socket.socket) -> None:
    """No namespaces: the program is one process of the host, and ends with us."""
    # It dies with the keeper, also where the keeper is killed.
    argv = private.bound(order.argv)
    machine = proc.start(argv, stdout=2, stderr=2, pass_fds=order.inherit)
    for descriptor in order.handed_on:
        os.close(descriptor)
    near, far = socket.socketpair()

    def tell_its_end() -> None:
        machine.wait()
        far.close()

    threading.Thread(target=tell_its_end, name="machine", daemon=True).start()
    control.send(message(Stage.STARTED))
    select.select([control, near], [], [])
    machine.kill()
    machine.wait()


def _become_root_of_a_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.Namespace.USER)
    kernel.stay_readable()
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _hand_over(control: socket.socket, machine: int) -> None:
    """The endpoint can tell by it when PID 1 is gone, and with PID 1 all that it holds."""
    descriptor = os.pidfd_open(machine)
    with contextlib.suppress(OSError):  # the endpoint is gone: noticed soon
        socket.send_fds(control, [message(Stage.FORKED)], [descriptor])
    os.close(descriptor)


def _tell_failure(control: socket.socket, error: Exception) -> None:
    text = error.message if isinstance(error, AmibuildError) else str(error)
    try:
        control.send(message(Stage.FAILED, text))
    except OSError:  # the endpoint is gone too: the log has it
        print(text, file=sys.stderr)  # noqa: T201 stderr is this process' log


if __name__ == "__main__":
    # The endpoint ends us by closing the socket. A signal for its whole process group is not ours.
    # A handler, not SIG_IGN, which the machine's programs would inherit.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with socket.socket(fileno=int(sys.argv[1])) as endpoint:
        sys.exit(main(endpoint))
