"""The supervisor's network: a namespace whose only way out is slirp4netns.

With root the host reaches the machine over a veth pair; without, over a forwarded high port of
slirp4netns. The host's own forwarding, firewall and addresses are never touched, and the host's
loopback is not reachable from inside.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local.machines.order import (
    INSIDE_LINK,
    MACHINES,
    METADATA_ADDRESS,
    TAP_ADDRESS,
    Addresses,
    Isolation,
    Order,
    listeners,
)

TAP = "tap0"
SLIRP_READY_S = 10.0


def listen_inside(order: Order) -> list[socket.socket]:
    """Brings the loopback up in the namespace of the caller, and listens on it."""
    proc.run(["ip", "link", "set", "lo", "up"])
    proc.run(["ip", "address", "add", f"{METADATA_ADDRESS}/32", "dev", "lo"])
    sockets = []
    for address in listeners(order.endpoint_port):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        sockets.append(listener)
    return sockets


def start_slirp(order: Order, namespace_fd: int) -> proc.Process:
    """The way out. To be called in the host's network namespace; returns once it is configured."""
    ready, told = os.pipe()
    api = ["--api-socket", "slirp.sock"] if order.isolation is Isolation.USER else []
    slirp = proc.start(
        [
            "slirp4netns",
            "--configure",
            "--mtu=65520",
            "--disable-host-loopback",
            "--netns-type=path",
            f"--ready-fd={told}",
            *api,
            f"/proc/self/fd/{namespace_fd}",
            TAP,
        ],
        stdout=2,
        stderr=2,
        pass_fds=(namespace_fd, told),
        new_session=False,
    )
    os.close(told)
    readable, _, _ = select.select([ready], [], [], SLIRP_READY_S)
    configured = bool(readable and os.read(ready, 1))
    os.close(ready)
    if not configured:
        slirp.kill()
        slirp.wait()
        raise HostError("slirp4netns did not give the machine a network")
    return slirp


def forward_ssh(order: Order) -> None:
    """Without root: the host's 127.x.y.z, high port, to port 22 of the namespace."""
    forward = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": "tcp",
            "host_addr": order.addresses.loopback,
            "host_port": order.ssh_port,
            "guest_addr": TAP_ADDRESS,
            "guest_port": 22,
        },
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as api:
        api.settimeout(SLIRP_READY_S)
        api.connect("slirp.sock")  # relative: a path of over 107 bytes is not an address
        api.sendall(json.dumps(forward).encode())
        api.shutdown(socket.SHUT_WR)
        answer = api.makefile("rb").read()
    if "error" in json.loads(answer):
        raise HostError(f"slirp4netns does not forward: {answer.decode(errors='replace')}")


def claim(preferred: int) -> tuple[int, socket.socket]:
    """The first free index from `preferred` on, and the socket that holds it while it is open.

    An abstract address is free again the moment that its last holder dies, and two endpoints of
    different data folders see each other's.
    """
    for offset in range(MACHINES):
        index = (preferred + offset) % MACHINES
        holder = _claim_one(index)
        if holder is not None:
            return index, holder
    raise HostError(f"all {MACHINES} networks for machines are taken")


@contextlib.contextmanager
def claimed(index: int) -> Iterator[bool]:
    """Whether the index was nobody's, and is ours while this lasts."""
    holder = _claim_one(index)
    if holder is None:
        yield False
        return
    with holder:
        yield True


def _claim_one(index: int) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0amibuild-network-{index}")
    except OSError as error:
        holder.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return holder


def join_host(addresses: Addresses, machine_pid: int) -> None:
    """With root: the veth pair. One end appears in the namespace at once, so it dies with it."""
    remove_link(addresses)  # of a killed keeper: whoever has the index owns the link's name
    inside = ["peer", "name", INSIDE_LINK, "netns", str(machine_pid)]
    proc.run(["ip", "link", "add", addresses.link, "type", "veth", *inside])
    proc.run(["ip", "address", "add", f"{addresses.host}/29", "dev", addresses.link])
    proc.run(["ip", "link", "set", addresses.link, "up"])


def configure_inside(addresses: Addresses) -> None:
    proc.run(["ip", "address", "add", f"{addresses.machine}/29", "dev", INSIDE_LINK])
    proc.run(["ip", "link", "set", INSIDE_LINK, "up"])


def forget_firewall() -> None:
    """What a reboot does to a real machine's rules: the namespace, which has them, stays."""
    if proc.which("nft"):
        proc.run(["nft", "flush", "ruleset"])


def remove_link(addresses: Addresses) -> None:
    """The kernel removes it with the namespace, but later; the next machine may be faster."""
    if Path("/sys/class/net", addresses.link).exists():
        with contextlib.suppress(HostError):
            proc.run(["ip", "link", "delete", addresses.link])
