"""What to do about a step that failed for a reason that is not its own: known from what it said."""

from __future__ import annotations

import re

from amibuild.communicator.shell import FULL, FULL_HINT
from amibuild.errors import CommandFailed

KILLED = 128 + 9
# What tools of Debian say (apt 3.0, dpkg 1.22, curl 8, wget 1.25, GnuTLS 3.8, OpenSSL 3.5, Python
# 3.13, bash 5.2) and what travels with a service, and what to do about it.
REASONS = (
    (re.escape(FULL), FULL_HINT),
    (
        r"No space left on device|don't have enough free space|"
        r"it does not fit: \d+ MiB of the disk",
        "the disk is full: builder.volume_gib is its size",
    ),
    (
        r"Disk quota exceeded",
        "a quota of the machine's own is reached: builder.volume_gib does not change it",
    ),
    (
        r"Could not get lock|dpkg frontend lock|is another process using it",
        "something else on the machine is installing packages: let the step wait for it, with "
        "apt-get -o DPkg::Lock::Timeout=300",
    ),
    (
        r"is not valid yet \(invalid for another|certificate is not yet valid|"
        r"not yet valid certificate|certificate of .+ is not yet activated",
        "the machine's clock is behind: does its time come from a server that it reaches?",
    ),
    (
        r"Release file for .+ is expired|[Cc]ertificate (has|is) expired|expired certificate|"
        r"certificate of .+ has expired",
        "the machine's clock is ahead, or its mirror out of date: does its time come from a server "
        "that it reaches?",
    ),
    (
        r"Temporary failure (resolving '|in name resolution)|Could not resolve |"
        r"unable to resolve host address|Could not connect to \S+:\d+|Unable to connect to \S+:|"
        r"Failed to connect to \S+ port \d+|timed out after \d+ milliseconds|"
        r"failed: (Connection (timed out|refused)|No route to host|Network is unreachable)\.|"
        r"no answer: .+ times in a row|E: Failed to fetch|W: Failed to fetch",
        "the machine does not reach its mirror: has the subnet a way out, is the mirror up?",
    ),
    (
        r"Cannot allocate memory|MemoryError|[Oo]ut of memory",
        "its memory was too little: name a larger one in builder.instance_types",
    ),
    (
        r"fork: (retry: )?Resource temporarily unavailable|can't start new thread",
        "it had as many processes as it may: does the step start them without an end? With more "
        "memory there may be more, see builder.instance_types",
    ),
)


def hint_for(error: CommandFailed) -> str | None:
    """For the last reason that its output gives; None where it gives none that is known."""
    for line in reversed(error.tail):
        for pattern, hint in REASONS:
            if re.search(pattern, line):
                return hint
    if error.command_exit_code == KILLED:
        return "it was killed, as the kernel does when memory is short: see builder.instance_types"
    return None
