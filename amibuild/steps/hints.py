"""What to do about a step that failed for a reason that is not its own: known from what it said."""

from __future__ import annotations

import re

from amibuild.communicator.shell import FULL, FULL_HINT
from amibuild.errors import CommandFailed

KILLED = 128 + 9
# What tools of Debian say (apt 3.0, dpkg 1.22, curl 8), and what to do about it.
REASONS = (
    (re.escape(FULL), FULL_HINT),
    (
        r": No space left on device$|\(28: No space left on device\)|don't have enough free space",
        "the disk is full: builder.volume_gib is its size",
    ),
    (
        r"Could not get lock|dpkg frontend lock|is another process using it",
        "something else on the machine is installing packages: let the step wait for it, with "
        "apt-get -o DPkg::Lock::Timeout=300",
    ),
    (
        r"is not valid yet \(invalid for another|certificate is not yet valid",
        "the machine's clock is behind: does its time come from a server that it reaches?",
    ),
    (
        r"Temporary failure resolving '|Could not resolve host|Could not connect to \S+:\d+|"
        r"Unable to connect to \S+:|E: Failed to fetch|W: Failed to fetch",
        "the machine does not reach its mirror: has the subnet a way out, is the mirror up?",
    ),
    (
        r"Cannot allocate memory|MemoryError|[Oo]ut of memory",
        "its memory was too little: name a larger one in builder.instance_types",
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
