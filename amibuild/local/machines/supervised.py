"""A started supervisor, seen from the endpoint: what both drivers' machines stand on."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import amibuild
from amibuild import proc
from amibuild.errors import AmibuildError, HostError
from amibuild.local.machines import cgroups, network, remains
from amibuild.local.machines.base import MetadataHandler
from amibuild.local.machines.order import Isolation, Order, Stage, listeners, read_message
from amibuild.local.machines.processes import descendants
from amibuild.local.machines.relay import Relay

log = logging.getLogger(__name__)

START_S = 30.0
KILL_S = 30.0
_MESSAGE_LIMIT = 1 << 16


class Supervised:
    """One keeper and what belongs to it in this process: its socket and the relay."""

    def __init__(
        self, order: Order, keeper: proc.Process, control: socket.socket, log_file: Path
    ) -> None:
        self._order = order
        self._keeper = keeper
        self._first = -1
        self._control = control
        self._log_file = log_file
        self._relay: Relay | None = None
        self._gone = threading.Event()
        self._when_gone: list[Callable[[], None]] = []

    @classmethod
    def start(
        cls,
        order: Order,
        metadata: MetadataHandler,
        *,
        handed_over: tuple[int, ...],
        when_gone: Callable[[], None],
        own_listeners: Sequence[socket.socket] = (),
    ) -> Supervised:
        """Returns once the machine's own program runs. `handed_over` is closed on this side.

        `own_listeners` take the place of those that the supervisor makes in its namespaces.

        Raises: HostError, with nothing left behind.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log_file = Path(order.run_dir, "supervisor.log")
        folder = str(Path(amibuild.__file__).parents[1])
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        try:
            with log_file.open("wb") as output:
                keeper = proc.start(
                    [sys.executable, "-m", cgroups.KEEPER, str(far.fileno())],
                    stdout=output,
                    stderr=output,
                    env={"PYTHONPATH": path},
                    pass_fds=(far.fileno(), *handed_over),
                )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
            for descriptor in handed_over:
                os.close(descriptor)
        self = cls(order, keeper, near, log_file)
        self._when_gone.append(when_gone)
        watcher = threading.Thread(
            target=self._watch, name=f"machine-{order.instance_id}", daemon=True
        )
        try:
            near.send(order.encode())
            found = list(own_listeners)
            if order.isolation is not Isolation.PLAIN:
                self._first = self._await(Stage.FORKED, 1)[0]
                numbers = self._await(Stage.LISTENING, len(listeners(order.endpoint_port)))
                found = [socket.socket(fileno=number) for number in numbers]
            self._relay = Relay(found, metadata, order.endpoint_port)
            self._await(Stage.STARTED, 0)
        except BaseException:
            watcher.start()
            self.kill()
            raise
        # Not before: it closes what is waited on here.
        watcher.start()
        return self

    @property
    def pid(self) -> int:
        return self._keeper.pid

    def pids(self) -> tuple[int, ...]:
        return () if self._gone.is_set() else descendants(self.pid)

    def gone(self) -> bool:
        return self._gone.is_set()

    def kill(self) -> None:
        # The keeper hears the end of the socket, and leaves once all is gone.
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if not self._gone.wait(KILL_S):
            raise HostError(
                f"a machine did not end in {KILL_S:.0f} s: process {self.pid} is still there"
            )

    def _watch(self) -> None:
        """Until the keeper ends; then nothing of the machine may stay open in this process."""
        code = self._keeper.wait()
        if code != 0:
            log.warning("the supervisor of a machine ended with %s: %s", code, self._last_words())
        self._control.close()
        if self._relay is not None:
            self._relay.close()
        if code < 0:
            self._do_the_keepers_last_work()
        if self._first >= 0:
            os.close(self._first)
        for action in self._when_gone:
            action()
        self._gone.set()

    def _do_the_keepers_last_work(self) -> None:
        """It was killed: PID 1 dies with it, and what is left then is removed here."""
        order = self._order
        if self._first >= 0:
            select.select([self._first], [], [], KILL_S)
        try:
            with network.claimed(order.network_index) as ours:
                # Whoever has the number by now has removed the link.
                remains.remove(order, self._keeper.pid, link=ours)
        except (AmibuildError, OSError) as error:
            log.warning("%s left something behind: %s", order.instance_id, error)

    def _await(self, stage: Stage, sockets: int) -> list[int]:
        readable, _, _ = select.select([self._control], [], [], START_S)
        if not readable:
            raise HostError(f"a machine was not {stage} after {START_S:.0f} s")
        raw, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_LIMIT, max(sockets, 1))
        if not raw:
            raise HostError(f"a machine's supervisor died: {self._last_words()}")
        got, text = read_message(raw)
        if got is not stage or len(descriptors) != sockets:
            for one in descriptors:
                os.close(one)
            raise HostError(f"a machine could not be started: {text or got}")
        return descriptors

    def _last_words(self) -> str:
        try:
            return self._log_file.read_text(errors="replace")[-2000:].strip()
        except OSError:  # the caller may already have removed the run folder
            return ""
