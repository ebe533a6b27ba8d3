"""A machine that is reached over SSH, and is this one: each command is run by its own shell.

The protocol is real, by paramiko's server; so are the shell, tar and all that it runs. Only systemd
is the one of tests/unit/systemd.py, and jobs lie in a folder of the test.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_FAILED_RESOURCE_SHORTAGE, OPEN_SUCCEEDED

from amibuild import proc
from amibuild.communicator import shell
from amibuild.communicator.ssh_keys import new_identity
from amibuild.communicator.ssh_link import Link, Place
from amibuild.recipe.ssh import Ssh
from amibuild.wait import SystemClock
from tests.local.tcp_proxy import Proxy
from tests.unit.systemd import Systemd


class Machine:
    """`link` is the connection to it, on which `proxy` counts what goes there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.systemd = Systemd(root.with_name(f"{root.name}-systemd"))
        self.commands: list[str] = []
        self.on_command: Callable[[str], None] = lambda command: None
        self.full = False
        """Whether it opens no further channel."""
        self.identity = new_identity()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._transports: list[paramiko.Transport] = []
        threading.Thread(target=self._accept, daemon=True).start()
        self.proxy = Proxy("127.0.0.1", self._listener.getsockname()[1])
        self.link = self.linked()

    def linked(self) -> Link:
        """Another connection, as of a bake that is taken up by another process."""
        place = Place("127.0.0.1", self.proxy.port, Ssh(user="root"))
        return Link(place, self.identity, SystemClock())

    def close(self) -> None:
        self.link.close()
        self._listener.close()
        for transport in self._transports:
            transport.close()
        self.proxy.__exit__()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.identity.host)
            self._transports.append(transport)
            with suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=_Server(self))


class _Server(paramiko.ServerInterface):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        full = OPEN_FAILED_RESOURCE_SHORTAGE
        return full if self._machine.full else OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        machine = self._machine
        machine.commands.append(command)
        machine.on_command(command)
        here = command.replace(shell.WORK, str(machine.root))
        (in_read, in_write), (out_read, out_write), (err_read, err_write) = (
            os.pipe() for _ in range(3)
        )
        running = proc.start(
            ["/bin/sh", "-c", machine.systemd.path + here],
            stdin=in_read,
            stdout=out_write,
            stderr=err_write,
        )
        for end in (in_read, out_write, err_write):
            os.close(end)
        threading.Thread(target=_feed, args=(channel, in_write), daemon=True).start()
        telling = [
            threading.Thread(target=_tell, args=(fd, send), daemon=True)
            for fd, send in ((out_read, channel.sendall), (err_read, channel.sendall_stderr))
        ]
        for thread in telling:
            thread.start()
        code = running.wait()
        for thread in telling:
            thread.join()
        # It may have been cut meanwhile.
        with suppress(OSError, EOFError, paramiko.SSHException):
            channel.send_exit_status(code if code >= 0 else 128 - code)
            channel.close()


def _tell(said: int, send: Callable[[bytes], object]) -> None:
    with os.fdopen(said, "rb", buffering=0) as source, suppress(OSError, EOFError):
        while data := source.read(65536):
            send(data)


def _feed(channel: paramiko.Channel, to: int) -> None:
    with os.fdopen(to, "wb", buffering=0) as sink, suppress(OSError, EOFError):
        while data := channel.recv(65536):
            sink.write(data)
