"""Talks to the QEMU guest agent over its virtio-serial port, and runs commands through it.

The host's end of the port is one half of a socket pair: no path, so no limit on its length, and
nobody else can connect. One request at a time, each with a deadline.
Source: QEMU Guest Agent Protocol Reference (guest-sync-delimited, guest-exec).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from dataclasses import dataclass

from amibuild.errors import HostError
from amibuild.local.machines.command import CANCELLED, OUTPUT_LIMIT, cancel_argv, launch_argv

CALL_S = 10.0
# A busy guest under TCG, or one that reboots: longer than this, and a command is given up.
SILENCE_S = 120.0
# A sync that was sent while nothing listened may be lost with a reset; one sent too often is
# only answered too often.
RESEND_SYNC_S = 3.0
LOOK_S = 0.3


class AgentSilent(HostError):
    """It did not answer in time. The next call first finds the end of old answers."""


class AgentGone(HostError):
    """The port is closed: the machine has ended."""


@dataclass(frozen=True)
class ExecStatus:
    """`exit_code` is None when a signal ended it."""

    exited: bool
    exit_code: int | None
    stdout: bytes
    stderr: bytes


class GuestAgent:
    def __init__(self, port: socket.socket) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._received = bytearray()
        self._synced = False
        self._sync_id = 0
        self._sync_sent = float("-inf")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # for a thread that waits for an answer
            self._port.shutdown(socket.SHUT_RDWR)
        self._port.close()

    def listening(self) -> bool:
        """Whether it answers now; waits for `LOOK_S` at most."""
        if not self._lock.acquire(timeout=LOOK_S):
            return False
        try:
            return self._sync(time.monotonic() + LOOK_S)
        except AgentGone:
            return False
        finally:
            self._lock.release()

    def call(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        timeout_s: float = CALL_S,
        answer_s: float | None = None,
    ) -> object:
        """What the command returns. `timeout_s` is for silence: a long answer may take longer.

        With `answer_s` it may be silent that much longer once it has answered a sync and was asked.
        Raises: HostError when it is refused; AgentSilent; AgentGone.
        """
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while not self._synced:
                if time.monotonic() >= deadline:
                    raise AgentSilent(f"the guest agent did not answer for {timeout_s:.0f} s")
                self._sync(deadline)
            self._synced = False  # until the answer is here
            self._send(json.dumps(request).encode() + b"\n", deadline)
            line = self._line(deadline + (answer_s or 0.0), more_s=timeout_s)
            if line is None:
                raise AgentSilent(f"{command} got no answer in time")
            self._synced = True
        answer = json.loads(line)
        if "error" in answer:
            raise HostError(f"the guest agent refused {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def execute(self, argv: tuple[str, ...], *, stdin: bytes = b"", capture: bool = True) -> int:
        """Starts a program; its number, for `status`.

        Once asked, a guest that others leave no core starts it late, but does: who gives it up and
        asks again has it twice, and each takes the other's files. Seen at a load of 14.
        """
        arguments: dict[str, object] = {
            "path": argv[0],
            "arg": list(argv[1:]),
            "capture-output": capture,
        }
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        answer = self.call("guest-exec", arguments, answer_s=SILENCE_S)
        assert isinstance(answer, dict)
        return int(answer["pid"])

    def status(self, number: int) -> ExecStatus:
        answer = self.call("guest-exec-status", {"pid": number})
        assert isinstance(answer, dict)
        return ExecStatus(
            exited=bool(answer["exited"]),
            exit_code=int(answer["exitcode"]) if "exitcode" in answer else None,
            stdout=base64.b64decode(answer.get("out-data", "")),
            stderr=base64.b64decode(answer.get("err-data", "")),
        )

    def _sync(self, deadline: float) -> bool:
        """Finds the point in the stream where the answers to earlier requests are over."""
        now = time.monotonic()
        if self._sync_id == 0 or now - self._sync_sent > RESEND_SYNC_S:
            self._sync_id = next(self._ids)
            self._sync_sent = now
            request = {
                "execute": "guest-sync-delimited",
                "arguments": {"id": self._sync_id},
            }
            # 0xff makes the agent's parser forget what it had of a request cut short.
            try:
                self._send(b"\xff" + json.dumps(request).encode() + b"\n", deadline)
            except AgentSilent:
                return False
        while (line := self._line(min(deadline, now + RESEND_SYNC_S))) is not None:
            try:
                answer = json.loads(line.rpartition(b"\xff")[2])
            except ValueError:  # the rest of an old answer
                continue
            if isinstance(answer, dict) and answer.get("return") == self._sync_id:
                self._sync_id = 0
                self._synced = True
                return True
        return False

    def _send(self, raw: bytes, deadline: float) -> None:
        # While nothing in the guest has the port open, QEMU reads nothing, and this end fills up.
        try:
            self._port.settimeout(max(deadline - time.monotonic(), 0.01))
            self._port.sendall(raw)
        except TimeoutError as error:
            raise AgentSilent("the guest agent takes no requests") from error
        except OSError as error:
            raise AgentGone(f"the guest agent's port is gone: {error}") from error

    def _line(self, deadline: float, *, more_s: float = 0) -> bytes | None:
        """The next line; None at the deadline, which each piece of it puts off to `more_s`.

        guest-exec-status sends all that it captured in one line: up to 16 MiB, in base64.
        """
        while b"\n" not in self._received:
            try:
                self._port.settimeout(max(deadline - time.monotonic(), 0.01))
                chunk = self._port.recv(1 << 20)
            except TimeoutError:
                return None
            except OSError as error:
                raise AgentGone(f"the guest agent's port is gone: {error}") from error
            if not chunk:
                raise AgentGone("the machine is gone")
            self._received += chunk
            deadline = max(deadline, time.monotonic() + more_s)
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line


class GuestCommand:
    """Its output is there once it has ended: the agent keeps it until then."""

    # A look costs 65 ms of the guest's time under TCG: not too many during a long command.
    FIRST_PAUSE_S = 0.1
    LONGEST_PAUSE_S = 1.0
    SHARE_OF_ELAPSED = 0.05

    def __init__(self, agent: GuestAgent, script: bytes, name: str) -> None:
        self._agent = agent
        self._name = name
        self._lock = threading.Lock()
        self._ended: ExecStatus | None = None
        self._cancelled = False
        self._started = self._heard = time.monotonic()
        self._next_look = self._started + self.FIRST_PAUSE_S
        self._number = agent.execute(launch_argv(name, script), stdin=script)

    def poll(self) -> int | None:
        with self._lock:
            if self._ended is None:
                self._look()
            if self._ended is None:
                return None
        if self._ended.exit_code is not None:
            return self._ended.exit_code
        if self._cancelled:
            return CANCELLED
        said = self._ended.stderr.decode(errors="replace").strip()[-500:]
        raise HostError(f"{self._name} was ended from outside: {said}")

    def output(self) -> tuple[bytes, bytes]:
        ended = self._ended
        if ended is None:
            return b"", b""
        return ended.stdout[:OUTPUT_LIMIT], ended.stderr[:OUTPUT_LIMIT]

    def cancel(self) -> None:
        with self._lock:
            if self._ended is not None or self._cancelled:
                return
            self._cancelled = True
        self._agent.execute(cancel_argv(self._name), capture=False)

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        try:
            status = self._agent.status(self._number)
        except AgentSilent:
            if now - self._heard > SILENCE_S:
                raise
            return
        self._heard = time.monotonic()
        if status.exited:
            self._ended = status
        pause = max(self.FIRST_PAUSE_S, self.SHARE_OF_ELAPSED * (now - self._started))
        self._next_look = time.monotonic() + min(pause, self.LONGEST_PAUSE_S)
