"""Run Command: what a command is, and the thread that takes it through a machine.

Sources: SSM API reference (botocore's model) for states and limits; amazon-ssm-agent for what the
agent does: `agent/appconfig/constants_unix.go` (exit code 137 when stopped by time-out or cancel,
194 to reboot and run again), `agent/plugins/runscript` (a failed script's last line on stderr),
and what ListCommandInvocations shows of the output (`agent/plugins/pluginutil`).
"""

from __future__ import annotations

import base64
import logging
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from amibuild.errors import HostError
from amibuild.local.life import Life, Wish
from amibuild.local.machines.base import AgentCommand, Machine
from amibuild.local.overlay.desk import Desk

log = logging.getLogger(__name__)

STDOUT_LIMIT = 24_000
STDERR_LIMIT = 8_000
LISTED_LIMIT = 2_500
STOPPED_BY_US = 137
REBOOT = 194
# SSM gives up on a script that asks for a reboot again and again; the number is ours.
MOST_REBOOTS = 5
DEFAULT_EXECUTION_S = 3600
EXECUTION_RANGE_S = range(5, 172_801)
ENDED = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
PLUGIN = "aws:runShellScript"
_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.2


@dataclass
class Invocation:
    """One command on one machine. Changed under the desk's lock only."""

    instance_id: str
    status: str = "Pending"
    details: str = "Pending"
    exit_code: int = -1
    stdout: str = ""
    stderr: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def elapsed(self) -> str:
        """ISO 8601, as in PT1.5S; empty before it runs."""
        if self.started is None:
            return ""
        seconds = ((self.ended or datetime.now(UTC)) - self.started).total_seconds()
        return f"PT{seconds:.3f}S"

    @property
    def listed_output(self) -> str:
        text = self.stdout
        if self.stderr:
            text += f"\n----------ERROR-------\n{self.stderr}"
        if len(text) > LISTED_LIMIT:
            cut = "\n---Output truncated---"
            text = text[: LISTED_LIMIT - len(cut)] + cut
        return text

    def close(self, status: str, details: str, exit_code: int) -> None:
        self.status, self.details, self.exit_code = status, details, exit_code
        self.ended = datetime.now(UTC)


@dataclass
class Command:
    document: str
    comment: str
    parameters: dict[str, list[str]]
    timeout_s: int
    invocations: dict[str, Invocation]
    targets: list[dict[str, Any]]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    requested: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def execution_s(self) -> int:
        """Out of range silently becomes the default, as the agent has it."""
        asked = (self.parameters.get("executionTimeout") or [""])[0]
        seconds = int(asked) if asked.isdecimal() else DEFAULT_EXECUTION_S
        return seconds if seconds in EXECUTION_RANGE_S else DEFAULT_EXECUTION_S

    @property
    def expires(self) -> datetime:
        return self.requested + timedelta(seconds=self.timeout_s + self.execution_s)

    @property
    def script(self) -> bytes:
        folder = (self.parameters.get("workingDirectory") or [""])[0]
        return agent_script(self.parameters.get("commands", []), folder)

    @property
    def status(self) -> str:
        """Of all invocations together: SSM's order of what weighs more."""
        found = {i.status for i in self.invocations.values()}
        for status in ("Cancelling", "InProgress", "Pending", "Failed", "TimedOut", "Cancelled"):
            if status in found:
                return status
        return "Success"


def agent_script(commands: Sequence[str], folder: str) -> bytes:
    """What the agent writes to its `_script.sh`: the lines as they are, for sh unless they say."""
    text = "\n".join(commands) + "\n"
    if not text.startswith("#!"):
        inside = f"cd {shlex.quote(folder)} || exit 1\n" if folder else ""
        return f"#!/bin/sh\n{inside}{text}".encode()
    if not folder:
        return text.encode()
    packed = base64.encodebytes(text.encode()).decode()
    return (
        "#!/bin/sh\n"
        f"script=$(mktemp) || exit 1\nbase64 -d >\"$script\" <<'END'\n{packed}END\n"
        f'chmod 700 "$script"\ncd {shlex.quote(folder)} || exit 1\n'
        '"$script"\ncode=$?\nrm -f "$script"\nexit $code\n'
    ).encode()


def run_invocation(command: Command, invocation: Invocation) -> None:
    """Takes one command through its machine, to its end. Runs in a thread of its own."""
    try:
        for turn in range(MOST_REBOOTS + 1):
            if not _run(command, invocation, turn):
                return
        _close(invocation, "Failed", "Failed", REBOOT)
    except HostError as error:
        log.warning("%s on %s: %s", command.id, invocation.instance_id, error)
        with Desk.current.lock:
            invocation.stderr += f"\n{error}"
        _close(invocation, "Failed", "Undeliverable", -1)


def _run(command: Command, invocation: Invocation, turn: int) -> bool:
    """One run of the script; True when it asks for a reboot, and then to be run again."""
    delivered = _deliver(command, invocation, f"amibuild-{command.id}-{turn}")
    if delivered is None:
        return False
    life, machine, running = delivered
    with Desk.current.lock:
        invocation.status = invocation.details = "InProgress"
        invocation.started = invocation.started or datetime.now(UTC)
    try:
        exit_code = _wait(running, invocation, command.execution_s, lambda: life.machine is machine)
    except HostError:
        life.lost_agent()
        raise
    if exit_code is None:
        running.cancel()
        _take_output(invocation, running)
        if invocation.cancel.is_set():
            _close(invocation, "Cancelled", "Cancelled", STOPPED_BY_US)
        else:
            _close(invocation, "TimedOut", "ExecutionTimedOut", STOPPED_BY_US)
        return False
    _take_output(invocation, running)
    if exit_code == REBOOT:
        life.wish(Wish.REBOOT)
        _until_gone(life, machine)
        return True
    if exit_code == 0:
        _close(invocation, "Success", "Success", 0)
    else:
        with Desk.current.lock:
            invocation.stderr += f"failed to run commands: exit status {exit_code}"
        _close(invocation, "Failed", "Failed", exit_code)
    return False


def _deliver(
    command: Command, invocation: Invocation, name: str
) -> tuple[Life, Machine, AgentCommand] | None:
    """The script, begun, as soon as the machine's agent takes it; None when it did not in time."""
    deadline = time.monotonic() + command.timeout_s
    while True:
        life = Desk.current.fleet.life(invocation.instance_id)
        if life is None:
            _close(invocation, "Failed", "Undeliverable", -1)
            return None
        machine = life.ready_machine()
        if machine is not None:
            try:
                return life, machine, machine.execute(command.script, name=name)
            except HostError as error:
                # It was there a moment ago: the command waits for it, as for one that is off.
                log.info("%s: %s", invocation.instance_id, error)
                life.lost_agent()
        if invocation.cancel.wait(_LONGEST_LOOK_S):
            _close(invocation, "Cancelled", "Cancelled", -1)
            return None
        if time.monotonic() > deadline:
            _close(invocation, "TimedOut", "DeliveryTimedOut", -1)
            return None


def _wait(
    running: AgentCommand, invocation: Invocation, limit_s: int, there: Callable[[], bool]
) -> int | None:
    """The exit code; None when time is up or it shall be cancelled.

    Raises: HostError when the machine is not there any longer.
    """
    deadline, pause = time.monotonic() + limit_s, _FIRST_LOOK_S
    while True:
        exit_code = running.poll()
        if exit_code is not None:
            return exit_code
        if not there():
            raise HostError("the machine went off while the command ran")
        if invocation.cancel.wait(pause) or time.monotonic() > deadline:
            return None
        pause = min(pause * 1.3, _LONGEST_LOOK_S)


def _until_gone(life: Life, machine: object) -> None:
    """Until the machine is another one: the rebooting one must not get the script again."""
    never = threading.Event()
    while life.machine is machine:
        never.wait(_LONGEST_LOOK_S)


def _take_output(invocation: Invocation, running: AgentCommand) -> None:
    stdout, stderr = running.output()
    with Desk.current.lock:
        invocation.stdout += stdout.decode(errors="replace")
        invocation.stderr += stderr.decode(errors="replace")


def _close(invocation: Invocation, status: str, details: str, exit_code: int) -> None:
    with Desk.current.lock:
        invocation.close(status, details, exit_code)
