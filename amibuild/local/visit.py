"""One machine, for who looks into it: its console as it grows, and a script run by its agent.

`local logs` and `local shell` ask for these on the control page. A visitor that hangs up ends
what it asked for.
"""

from __future__ import annotations

import base64
import select
import socket
import threading
import uuid
from collections.abc import Callable, Iterator

from amibuild.errors import HostError
from amibuild.local.life import Life
from amibuild.local.machines.base import AgentCommand

_LOOK_S = 0.2
_FIRST_LOOK_S = 0.01


def hung_up(connection: socket.socket, wait_s: float) -> bool:
    """True once the other end is closed; waits that long for it."""
    readable, _, _ = select.select([connection], [], [], wait_s)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)


def new_console(
    life: Life, gone: Callable[[], bool], over: threading.Event, connection: socket.socket
) -> Iterator[bytes]:
    """What is on the console, then what comes, over reboots, until `gone` says there is no more."""
    seen = b""
    while True:
        last = gone() or over.is_set()
        now = life.console()
        fresh = added(seen, now)
        if fresh:
            yield fresh
        seen = now
        if last or hung_up(connection, _LOOK_S):
            return


def added(seen: bytes, now: bytes) -> bytes:
    """What was added since. Of a console only the last 64 KiB are kept, so its start moves."""
    if now.startswith(seen):
        return now[len(seen) :]
    mark = seen[-1024:]
    at = now.rfind(mark)
    return now if at < 0 else now[at + len(mark) :]


def run_script(life: Life, script: bytes, connection: socket.socket) -> dict[str, object]:
    """Runs it as root to its end: its exit code and output, in base64, each cut at 1 MiB.

    Raises: HostError when its agent does not answer, or the visitor hung up.
    """
    machine = life.ready_machine()
    if machine is None:
        raise HostError(f"{life.order.instance_id} takes no commands now")
    command = machine.execute(script, name=f"shell-{uuid.uuid4()}")
    exit_code = _wait(command, lambda: life.machine is machine, connection)
    stdout, stderr = command.output()
    return {
        "exit_code": exit_code,
        "stdout": base64.b64encode(stdout).decode(),
        "stderr": base64.b64encode(stderr).decode(),
    }


def _wait(command: AgentCommand, there: Callable[[], bool], connection: socket.socket) -> int:
    pause = _FIRST_LOOK_S
    while True:
        exit_code = command.poll()
        if exit_code is not None:
            return exit_code
        if not there():
            raise HostError("the machine went off while the command ran")
        if hung_up(connection, pause):
            command.cancel()
            raise HostError("nobody waits for the command any longer")
        pause = min(pause * 1.3, _LOOK_S)
