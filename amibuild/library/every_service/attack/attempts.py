"""The attempts, by attack. `by` names the lines of the unit that refuse them.

`mine` are the service's own folders; `others` what other services and the system have. What
gets through is undone.
"""

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .means import (
    CLONE_NEWNS,
    MARK,
    apart,
    asked_nonsense,
    connect_bus,
    libc_call,
    load,
    looked_into,
    make_setuid,
    map_executable,
    mount_something,
    opened,
    read_journal,
    run,
    run_elsewhere,
    run_from_memory,
    with_device,
    with_file,
    without_no_new_privs,
    written,
    written_elsewhere,
)

Mine = dict[str, str]
Others = dict[str, list[str]]
Attempt = tuple[str, Callable[[], object]]
Attack = Callable[[Mine, Others], Iterator[Attempt]]

ATTACKS: dict[str, tuple[str, Attack]] = {}
# Each service has its own of these.
OWN_FOLDERS = ("/tmp", "/var/tmp", "/proc", "/sys", "/dev")
METADATA = ("169.254.169.254", 80)
# The firewall refuses at once; without it a packet is lost, and nothing tells the program.
PATIENCE_S = 3
PTRACE_TRACEME, PTRACE_SEIZE = 0, 0x4206
CLONE_NEWUSER = 0x10000000
READ_KERNEL_LOG = 3


def attack(name: str, by: str) -> Callable[[Attack], Attack]:
    def register(function: Attack) -> Attack:
        ATTACKS[name] = by, function
        return function

    return register


def processes(others: Others) -> Iterator[tuple[str, int]]:
    """Unit and number of each: the number is another one after a restart."""
    for unit, _, pid in (line.partition(" ") for line in others["processes"]):
        yield unit, int(pid)


@attack("write outside its state", by="ProtectSystem, ReadOnlyPaths, ProtectHome, User")
def write_outside(mine: Mine, others: Others) -> Iterator[Attempt]:
    places = ["/etc", "/etc/systemd/system", "/usr/bin", "/usr/lib/amibuild", "/opt", "/boot"]
    places += ["/root", "/home", "/run", "/var/lib", "/var/log", "/var/spool"]
    yield "its configuration", partial(written, f"{mine['config']}/{MARK}")
    for place in [*places, *others["state"], *others["config"]]:
        if os.path.lexists(place) or place in others["state"]:
            yield place, partial(written, f"{place}/{MARK}")
    yield "/run/lock", partial(written, f"/run/lock/{MARK}")
    yield "anywhere else", partial(written_elsewhere, {mine["state"], *OWN_FOLDERS})


@attack("change a setting of the kernel", by="ProtectKernelTunables, ProcSubset, User")
def set_kernel(mine: Mine, others: Others) -> Iterator[Attempt]:
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/proc/sysrq-trigger"):
        yield path, partial(opened, path)


@attack("lift its own limits", by="ProtectControlGroups, User")
def lift_limits(mine: Mine, others: Others) -> Iterator[Attempt]:
    path = "/sys/fs/cgroup/cgroup.procs"
    yield path, partial(opened, path)


@attack("load a kernel module", by="SystemCallFilter, CapabilityBoundingSet")
def load_module(mine: Mine, others: Others) -> Iterator[Attempt]:
    # Whoever may load one is told that this is none.
    yield "init_module", partial(asked_nonsense, "init_module", MARK.encode(), len(MARK), b"")


@attack("load a program into the kernel", by="SystemCallFilter, CapabilityBoundingSet")
def load_bpf(mine: Mine, others: Others) -> Iterator[Attempt]:
    yield "bpf", partial(asked_nonsense, "bpf", 0, bytes(72), 72)


@attack(
    "read another's state, configuration and secrets",
    by="User, CapabilityBoundingSet, PrivateUsers",
)
def read_others(mine: Mine, others: Others) -> Iterator[Attempt]:
    for place in (
        f for kind in ("state", "config", "secrets", "credentials") for f in others[kind]
    ):
        yield place, partial(os.listdir, place)
    for path in others["decoy"]:
        yield path, partial(looked_into, path)


@attack("find what another put into a folder for all", by="PrivateTmp, TemporaryFileSystem")
def find_shared(mine: Mine, others: Others) -> Iterator[Attempt]:
    for path in others["shared"]:
        yield path, Path(path).read_bytes


@attack("read what is root's", by="User, ProtectHome, ProtectProc")
def read_roots(mine: Mine, others: Others) -> Iterator[Attempt]:
    for path in ("/etc/shadow", "/root/.bashrc", "/proc/1/environ"):
        yield path, Path(path).read_bytes
    yield "/var/log/journal, /run/log/journal", read_journal


@attack("see another's processes", by="ProtectProc")
def see_processes(mine: Mine, others: Others) -> Iterator[Attempt]:
    for unit, pid in processes(others):
        yield unit, Path(f"/proc/{pid}/cmdline").read_bytes


@attack("send a signal to another's process", by="User")
def signal_process(mine: Mine, others: Others) -> Iterator[Attempt]:
    for unit, pid in processes(others):
        yield unit, partial(os.kill, pid, 0)


@attack("look into another process (ptrace)", by="SystemCallFilter, User")
def trace(mine: Mine, others: Others) -> Iterator[Attempt]:
    for unit, pid in processes(others):
        yield unit, partial(apart, partial(libc_call, "ptrace", PTRACE_SEIZE, pid, None, None))
    yield (
        "any process at all",
        partial(apart, partial(libc_call, "ptrace", PTRACE_TRACEME, 0, None, None)),
    )
    yield (
        "process_vm_readv",
        partial(libc_call, "process_vm_readv", os.getpid(), None, 0, None, 0, 0),
    )


@attack("reach the metadata address", by="IPAddressDeny, the firewall")
def reach_metadata(mine: Mine, others: Others) -> Iterator[Attempt]:
    yield METADATA[0], partial(socket.create_connection, METADATA, PATIENCE_S)


@attack(
    "open a raw socket", by="RestrictAddressFamilies, CapabilityBoundingSet, PrivateUsers, User"
)
def raw_socket(mine: Mine, others: Others) -> Iterator[Attempt]:
    wanted = (
        ("AF_INET", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        ("AF_PACKET", socket.AF_PACKET, socket.SOCK_RAW, 0),
    )
    for name, family, kind, protocol in wanted:
        yield name, partial(socket.socket, family, kind, protocol)


@attack("talk to the system's bus", by="RestrictAddressFamilies")
def system_bus(mine: Mine, others: Others) -> Iterator[Attempt]:
    yield "/run/dbus/system_bus_socket", connect_bus


@attack("get sockets past the filter (io_uring)", by="SystemCallFilter")
def rings(mine: Mine, others: Others) -> Iterator[Attempt]:
    # It is no ring without a size; one that is denied is not even looked at.
    yield "io_uring_setup", partial(asked_nonsense, "io_uring_setup", 0, bytes(120))


@attack("make a namespace, mount something", by="RestrictNamespaces, SystemCallFilter")
def namespaces(mine: Mine, others: Others) -> Iterator[Attempt]:
    for name, flag in (("user", CLONE_NEWUSER), ("mount", CLONE_NEWNS)):
        yield name, partial(apart, partial(libc_call, "unshare", flag))
    yield "mount", partial(apart, mount_something)


@attack("become somebody else", by="SystemCallFilter, NoNewPrivileges, RestrictSUIDSGID")
def become(mine: Mine, others: Others) -> Iterator[Attempt]:
    yield "setuid", partial(apart, partial(os.setresuid, 0, 0, 0))
    yield "setgid", partial(apart, partial(os.setresgid, 0, 0, 0))
    yield "a setuid file", partial(with_file, mine["state"], make_setuid)
    yield "without no_new_privs", without_no_new_privs


@attack("read the kernel's log", by="ProtectKernelLogs, SystemCallFilter")
def kernel_log(mine: Mine, others: Others) -> Iterator[Attempt]:
    buffer = ctypes.create_string_buffer(64)
    yield "syslog", partial(libc_call, "klogctl", READ_KERNEL_LOG, buffer, 64)


@attack(
    "reach a disk or make a device", by="PrivateDevices, CapabilityBoundingSet, PrivateUsers, User"
)
def devices(mine: Mine, others: Others) -> Iterator[Attempt]:
    yield "mknod", partial(with_device, mine["state"])


@attack("run a program of its own", by="NoExecPaths, SystemCallFilter")
def run_own(mine: Mine, others: Others) -> Iterator[Attempt]:
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        yield place, partial(with_file, place, run)
        yield f"{place}, by the loader", partial(with_file, place, load)
    yield "its state", partial(with_file, mine["state"], run)
    yield "its state, by the loader", partial(with_file, mine["state"], load)
    yield "memory", run_from_memory
    yield "elsewhere", partial(run_elsewhere, mine["state"])


@attack("make machine code in its memory", by="MemoryDenyWriteExecute")
def machine_code(mine: Mine, others: Others) -> Iterator[Attempt]:
    yield "mmap", map_executable
