"""A shell where there is no terminal: each line runs by itself, where the last one ended."""

from __future__ import annotations

import os
import re
import select
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from amibuild import signals
from amibuild.errors import Interrupted

if TYPE_CHECKING:
    from amibuild.guests import Ran

STDIN_SOON_S = 2.0
_EXIT = re.compile(r"(?:exit|logout)(?:\s+(\d{1,3}))?")
HOW = "each line runs by itself, in the folder where the last one ended; Ctrl-D ends"


def bash(script: bytes) -> bytes:
    """As a script file; one that says its interpreter keeps it."""
    return script if script.startswith(b"#!") else b"#!/bin/bash\n" + script


def whole_stdin(tell: Callable[[str], None]) -> bytes:
    """All of it: what runs on a machine is given it at its start."""
    if not select.select([sys.stdin], [], [], STDIN_SOON_S)[0]:
        tell("reading stdin to its end first; </dev/null is for none")
    return sys.stdin.buffer.read()


def show(ran: Ran) -> int:
    """Its output where ours goes; its exit code."""
    from amibuild.ui import write_bytes

    write_bytes(ran.stdout)
    sys.stderr.buffer.write(ran.stderr)
    sys.stderr.buffer.flush()
    return ran.exit_code


def line_by_line(machine: str, run: Callable[[bytes], Ran]) -> int:
    """The exit code of the last line. Its folder is kept in memory of the machine, not on disk."""
    code, place = 0, shlex.quote(f"/run/amibuild/shell-{os.getpid()}")
    while True:
        try:
            with signals.catch():
                line = _prompted(f"{machine}# ")
                if not line:
                    break
                if left := _EXIT.fullmatch(line.strip()):
                    code = int(left[1] or code) & 0xFF
                    break
                script = (
                    f'cd "$(cat {place} 2>/dev/null || echo /root)" || exit\n'
                    f"{{ eval {shlex.quote(line)}\n}} </dev/null\n"
                    f"code=$?\npwd >{place}\nexit $code\n"
                )
                code = show(run(bash(script.encode())))
        except Interrupted as interrupt:
            if interrupt.signal_name != "SIGINT":
                raise
            # As a shell does: what ran has been ended, since nobody waits for it.
            sys.stderr.write("\n")
            code = interrupt.exit_code
    run(bash(f"rm -f {place}\n".encode()))
    return code


def _prompted(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline()
