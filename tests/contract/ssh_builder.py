"""A builder that is reached over SSH, and needs no machine: the protocol is real, by paramiko's
server, and each job is answered as tests/contract/builder.py answers it.

No OpenSSH: its machine would be this one, and a bake's steps change what they run on.
"""

from __future__ import annotations

import shlex
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from amibuild.communicator.ssh import BOOT_ID
from amibuild.communicator.ssh_keys import Identity, public_line

if TYPE_CHECKING:
    from amibuild.local.machines.script import Outcome

RELAY = Path(__file__).parents[1] / "soak/mortal_relay.py"


class SshBuilder:
    """It has the keys that are in `keys` when somebody comes for the first time, and keeps them, as
    a machine has those that it was launched with."""

    def __init__(self, folder: Path, keys: Callable[[], Path], answer: Callable[[str], Outcome]):
        self._keys = keys
        self.answer = answer
        self.identity: Identity | None = None
        self.admits_all = False
        self._folder = folder
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._transports: list[paramiko.Transport] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def proxy_command(self) -> str:
        """What leads there: at the address that is in the books nothing answers."""
        deaths = self._folder / "deaths"
        deaths.mkdir(parents=True, exist_ok=True)
        port = str(self._listener.getsockname()[1])
        return shlex.join([sys.executable, str(RELAY), "127.0.0.1", port, str(deaths), "0"])

    def close(self) -> None:
        # Over before the number of its socket is another one's: it would answer there, with
        # the keys of this one.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for transport in self._transports:
            transport.close()
        self._thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.identity is None:
                self.identity = Identity.model_validate_json(self._keys().read_text())
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.identity.host)
            self._transports.append(transport)
            with suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=_Server(self, public_line(self.identity.user)))


class _Server(paramiko.ServerInterface):
    def __init__(self, builder: SshBuilder, admitted: str) -> None:
        self._builder = builder
        self._admitted = admitted

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = self._builder.admits_all or public_line(key) == self._admitted
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        code, said = 0, b""
        if "amibuild-reply" in command:
            channel.sendall(b"amibuild-has 0\n")
            while channel.recv(65536):
                pass
            outcome = self._builder.answer(command)
            assert isinstance(outcome.stdout, str)
            code, said = outcome.exit_code, outcome.stdout.encode()
        elif command.endswith(f"cat {BOOT_ID}'"):
            said = b"9d2c6a0e-0000-4000-8000-000000000001\n"
        with suppress(OSError, EOFError, paramiko.SSHException):
            channel.sendall(said)
            channel.send_exit_status(code)
            channel.close()
