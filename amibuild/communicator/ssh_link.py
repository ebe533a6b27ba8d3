"""One SSH connection to a machine, through Fabric: made again whenever it is needed and not there.

The machine's host key is known before the machine is, and any other is refused.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

import fabric
import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from amibuild import proc
from amibuild.communicator.ssh_keys import Identity, Login, login, public_line
from amibuild.errors import HostKeyRefused
from amibuild.recipe.ssh import Ssh
from amibuild.wait import Clock

# Its errors come as exceptions too, and nobody wants its tracebacks in the story.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

CONNECT_S = 15
# A word every so often keeps what is on the way from forgetting the connection.
ALIVE_EVERY_S = 15
# A connection on which nothing moves for so long is none.
SILENCE_S = 30
# OpenSSH takes so many bytes in a packet, and paramiko would send them in smaller ones.
WINDOW_BYTES = 16 * 1024 * 1024
# They need no hash beside them: 1.4 times the speed of aes128-ctr, which paramiko asks for first.
FASTEST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
PROBE = "keepalive@openssh.com"


class Why(StrEnum):
    """What it looks like from here when a machine is not reached."""

    REFUSED = "nothing listens at the port"
    SILENT = "no answer at all"
    LOGIN = "its sshd takes none of the keys"
    BROKE = "the connection broke, or the way there did"


class Away(Exception):
    """The machine is not reached now, or the connection broke: it may be again in a moment."""

    def __init__(self, message: str, why: Why = Why.BROKE) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True)
class Place:
    """Where a machine takes connections, and how one comes there."""

    host: str
    port: int
    settings: Ssh


class Pinned(paramiko.MissingHostKeyPolicy):
    """The one key that may answer."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        if public_line(key) != public_line(self._key):
            raise HostKeyRefused(host=hostname, expected=_told(self._key), seen=_told(key))


class Known(paramiko.MissingHostKeyPolicy):
    """A bastion must be in the known_hosts of who bakes."""

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        raise HostKeyRefused(
            host=hostname,
            expected="one in ~/.ssh/known_hosts",
            seen=_told(key),
            hint="log in to the bastion by ssh once, and compare its key then",
        )


def _why(error: Exception) -> Why:
    if isinstance(error, NoValidConnectionsError):
        refused = any(isinstance(one, ConnectionRefusedError) for one in error.errors.values())
        return Why.REFUSED if refused else Why.SILENT
    if isinstance(error, TimeoutError):
        return Why.SILENT
    if isinstance(error, paramiko.AuthenticationException) or "authentication" in str(error):
        return Why.LOGIN
    return Why.BROKE


def _told(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


class Link:
    def __init__(self, place: Place, identity: Identity, clock: Clock) -> None:
        """Raises: PlanError when the recipe's key can't be read."""
        self.place = place
        self._identity = identity
        self._who: Login = login(place.settings, identity)
        self._clock = clock
        self._connection: fabric.Connection | None = None
        self._probe: threading.Thread | None = None
        self._probed = 0.0
        self._proxy: proc.Process | None = None
        self.boot = ""
        """The boot id of the machine, once it was asked for on this connection."""

    @property
    def user(self) -> str:
        return self._who.user

    @property
    def is_open(self) -> bool:
        return self._connection is not None and bool(self._connection.is_connected)

    @contextmanager
    def session(self) -> Iterator[paramiko.Channel]:
        """A channel for one command, closed afterwards. Raises: Away, HostKeyRefused."""
        with self.failing():
            channel = self._session()
        try:
            yield channel
        finally:
            with suppress(OSError, EOFError, paramiko.SSHException):  # it may be broken
                channel.close()

    def begin(self, channel: paramiko.Channel, command: str) -> None:
        """Raises: Away, also when the machine does not say that it has begun it."""
        with self.failing(), answered(channel):
            channel.exec_command(command)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Around what speaks to the machine: whatever breaks on the way is Away."""
        try:
            yield
        except paramiko.BadHostKeyException as error:
            # Of the machine no other is known than the pinned one: this is a bastion.
            raise HostKeyRefused(
                host=error.hostname,
                expected=f"{_told(error.expected_key)} of ~/.ssh/known_hosts",
                seen=_told(error.key),
                hint="nothing was sent to the bastion; if it has a new key, compare that and "
                "replace the old one: ssh-keygen -R",
            ) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            if isinstance(error, TimeoutError):
                self.close()
            raise Away(str(error) or type(error).__name__, _why(error)) from error

    def check(self) -> None:
        """Finds out whether the machine still answers; asked while nothing else is said.

        Raises: Away when it has not answered for long, or the connection broke.
        """
        transport = self._connection.transport if self._connection else None
        if transport is None or not transport.is_active():
            raise Away("the connection broke")
        now = self._clock.monotonic()
        if self._probe is not None and self._probe.is_alive():
            if now - self._probed > SILENCE_S:
                self.close()
                raise Away("nothing came back on the connection")
        elif now - self._probed > ALIVE_EVERY_S:
            self._probed = now
            self._probe = threading.Thread(target=_ask, args=(transport,), daemon=True)
            self._probe.start()

    def close(self) -> None:
        self.boot = ""
        if self._connection is not None:
            gateway = self._connection.gateway
            for one in (self._connection, gateway):
                # What let nobody in is no connection to fabric, and has a thread and sockets.
                if isinstance(one, fabric.Connection):
                    with suppress(OSError, EOFError, paramiko.SSHException):
                        one.close()
                    one.client.close()
            self._connection = None
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
            self._proxy = None

    def _session(self) -> paramiko.Channel:
        transport = self._transport()
        try:
            channel = transport.open_session(timeout=CONNECT_S)
        except paramiko.ChannelException:  # an answer, which is no
            raise
        except (OSError, EOFError, paramiko.SSHException):
            self.close()  # it went silent meanwhile: the next one goes by another connection
            raise
        channel.settimeout(SILENCE_S)
        return channel

    def _transport(self) -> paramiko.Transport:
        if not self.is_open:
            self.close()
            self._connection = self._connected()
        assert self._connection is not None
        transport: paramiko.Transport = self._connection.transport
        return transport

    def _connected(self) -> fabric.Connection:
        settings = self.place.settings
        connection = fabric.Connection(
            self.place.host,
            user=self._who.user,
            port=self.place.port,
            gateway=self._gateway(),
            connect_timeout=CONNECT_S,
            # What stands in ~/.ssh/config is not about a machine that lives for minutes.
            config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
            connect_kwargs={
                "pkey": self._who.key,
                "allow_agent": settings.agent,
                "look_for_keys": False,
                "banner_timeout": CONNECT_S,
                "auth_timeout": SILENCE_S,
                "transport_factory": _transport,
                **({"sock": self._proxied()} if settings.proxy_command else {}),
            },
        )
        connection.client.set_missing_host_key_policy(Pinned(self._identity.host))
        self._connection = connection  # which also closes one that is half made
        connection.open()
        connection.transport.set_keepalive(ALIVE_EVERY_S)
        self._probed = self._clock.monotonic()
        return connection

    def _proxied(self) -> socket.socket:
        """The near end of the proxy command. paramiko's own way waits for one that has ended."""
        command = self.place.settings.proxy_command or ""
        for field, value in (("%h", self.place.host), ("%p", str(self.place.port))):
            command = command.replace(field, value)
        near, far = socket.socketpair()
        with far:
            self._proxy = proc.start(
                ["/bin/sh", "-c", f"exec {command}"], stdin=far.fileno(), stdout=far.fileno()
            )
        return near

    def _gateway(self) -> fabric.Connection | None:
        settings = self.place.settings
        if settings.bastion is None:
            return None
        # This one is a host of theirs, with its lines in ~/.ssh/config.
        gateway = fabric.Connection(settings.bastion, connect_timeout=CONNECT_S)
        gateway.client.load_system_host_keys()
        gateway.client.set_missing_host_key_policy(Known())
        return gateway


@contextmanager
def answered(channel: paramiko.Channel) -> Iterator[None]:
    """Around what asks for a yes: paramiko waits for that as long as the connection seems to stand.

    Raises: TimeoutError.
    """
    silent = threading.Event()

    def give_up() -> None:
        silent.set()
        channel.get_transport().close()

    limit = threading.Timer(SILENCE_S, give_up)
    limit.daemon = True
    limit.start()
    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        if silent.is_set():
            raise TimeoutError("nothing came back on the connection") from error
        raise
    finally:
        limit.cancel()


def _transport(sock: socket.socket, **more: object) -> paramiko.Transport:
    # Linux has it. What is sent and never acknowledged would else be waited for 15 minutes long.
    limit = getattr(socket, "TCP_USER_TIMEOUT", None)
    if limit is not None and getattr(sock, "family", None) in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.IPPROTO_TCP, limit, SILENCE_S * 1000)
    made = paramiko.Transport(sock, default_window_size=WINDOW_BYTES, **more)  # type: ignore[arg-type]
    options = made.get_security_options()
    options.ciphers = (*FASTEST, *(one for one in options.ciphers if one not in FASTEST))
    return made


def _ask(transport: paramiko.Transport) -> None:
    """sshd answers what it does not know with a no, and that is an answer."""
    with suppress(OSError, EOFError, paramiko.SSHException):
        transport.global_request(PROBE, wait=True)
