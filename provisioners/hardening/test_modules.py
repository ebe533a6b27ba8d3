"""What can't be loaded: asked for by a program, the way an attack would."""

import socket
from pathlib import Path

from testinfra.host import Host

# That the kernel would have it: `insmod` is what modprobe does when nothing is in the way.
THERE = "modprobe --dry-run --show-depends --ignore-install %s"
SCTP = 132
TIPC = 30


def test_a_protocol_that_nobody_uses_stays_out_of_the_kernel(host: Host, own_kernel: None) -> None:
    assert "insmod" in host.check_output(THERE, "sctp")
    refused = 0
    for family, kind, protocol in (
        (socket.AF_INET, socket.SOCK_STREAM, SCTP),
        (TIPC, socket.SOCK_STREAM, 0),
    ):
        try:
            socket.socket(family, kind, protocol).close()
        except OSError:
            refused += 1
    assert refused == 2
    host.run("modprobe sctp")
    loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    assert not loaded & {"sctp", "tipc", "dccp", "rds"}
