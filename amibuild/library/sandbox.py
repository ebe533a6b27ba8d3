"""What a service may do on the machine: its own work in its own folder, and nothing else.

Pure. Each line has its attempt in every_service/attack.py, which runs in a copy of the finished
unit on a fresh boot of the image and must not get through.
"""

from __future__ import annotations

from amibuild.library.service import Runtime, Service

# Who may ask there gets the keys of the instance's role. The second one is its IPv6 twin.
METADATA = ("169.254.169.254", "fd00:ec2::254")
# All that a service can write to beside its state directory. `NoExecPaths=/` would not do: systemd
# leaves out every path that another line mounts, such as /tmp for PrivateTmp. Nor may a path stand
# here that ProtectSystem makes read-only, for it would no longer be. Seen with systemd 257.
WRITABLE = ("/tmp", "/var/tmp")
# Of what @system-service lets through, ways around other lines: a file in memory to run a program
# from, sockets that no filter sees (io_uring makes them without the system call), other processes'
# memory without ptrace.
DETOURS = (
    "~memfd_create",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "process_vm_readv",
    "process_vm_writev",
)

# Sandboxed like this, a unit's exposure is 1.1 (systemd 257). A good figure says nothing about
# whether the program still works: the checks look for its listening sockets as well.
EVERY_SERVICE = (
    # Where the recipe has the step `hardening`, and the kernel is the machine's own.
    ("AppArmorProfile", "-amibuild-service"),
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    # Which `strict` leaves out, and with it /run/lock, where everybody may write.
    ("ReadOnlyPaths", "/run"),
    ("ProtectHome", "yes"),
    ("ProtectProc", "invisible"),
    ("ProcSubset", "pid"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateUsers", "yes"),
    ("PrivateIPC", "yes"),
    # The one folder for all that the lines above leave. NoExecPaths would undo it.
    ("TemporaryFileSystem", "/dev/shm:mode=1777,noexec"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
    ("LockPersonality", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", " ".join(DETOURS)),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
)
# What differs by runtime. Mono reads its interfaces by netlink, keeps a socket for itself and sets
# the priority of its threads, without which it ends before Main.
RUNTIMES = {
    Runtime.NATIVE: (
        ("RestrictAddressFamilies", "AF_INET AF_INET6"),
        ("SystemCallFilter", "~@privileged @resources"),
        ("MemoryDenyWriteExecute", "yes"),
    ),
    Runtime.JIT: (
        ("RestrictAddressFamilies", "AF_INET AF_INET6"),
        ("SystemCallFilter", "~@privileged @resources"),
    ),
    Runtime.MONO: (
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("SystemCallFilter", "~@privileged"),
    ),
}


def sandbox(service: Service) -> list[tuple[str, str]]:
    """The lines of its unit."""
    own = [] if service.file.runs_from_state else [service.state_directory]
    # Needs the kernel's BPF, which an nspawn machine has not: the firewall has the rule too.
    closed = [] if service.file.uses_role else [("IPAddressDeny", " ".join(METADATA))]
    return [
        *EVERY_SERVICE,
        *RUNTIMES[service.file.runtime],
        *closed,
        # No program runs from where the service can write one.
        ("NoExecPaths", " ".join([*own, *WRITABLE])),
    ]
