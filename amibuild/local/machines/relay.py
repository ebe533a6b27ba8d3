"""What answers at 169.254.169.254 and at the API's port inside a machine.

The listeners were made in the machine's network namespace and handed over, so this process serves
IMDS itself, and carries the other connections to its own API port on 127.0.0.1. Open sockets keep
that namespace alive: `close` ends them all.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

from amibuild.local.machines.base import MetadataHandler, MetadataRequest, MetadataResponse

log = logging.getLogger(__name__)

Serve = Callable[[socket.socket], None]

_CHUNK = 256 * 1024
_IDLE_S = 30.0
_RETRY_S = 0.2
_CONNECT_S = 5.0
_BODY_LIMIT = 64 * 1024


class Relay:
    """Serves until closed. `listeners[0]` is IMDS, the others are the API; it owns them all."""

    def __init__(
        self, listeners: list[socket.socket], metadata: MetadataHandler, endpoint_port: int
    ) -> None:
        self._metadata = metadata
        self._endpoint_port = endpoint_port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set(listeners)
        self._closed = threading.Event()
        for number, listener in enumerate(listeners):
            serve = self._serve_metadata if number == 0 else self._carry
            threading.Thread(
                target=self._accept,
                args=(listener, serve),
                name=f"relay-{listener.getsockname()[1]}",
                daemon=True,
            ).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            sockets, self._open = self._open, set()
        for one in sockets:
            # shutdown wakes the thread that is blocked on it; close alone would not.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener: socket.socket, serve: Serve) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                # Closed, which ends the loop, or out of descriptors, which may pass.
                if not self._closed.wait(_RETRY_S):
                    log.warning("cannot take a connection from inside a machine: %s", error)
                continue
            if self._own(connection):
                threading.Thread(
                    target=self._run, args=(serve, connection), name="relay", daemon=True
                ).start()

    def _run(self, serve: Serve, connection: socket.socket) -> None:
        try:
            serve(connection)
        except OSError as error:
            log.debug("a connection from inside the machine ended: %s", error)
        finally:
            self._disown(connection)

    def _own(self, one: socket.socket) -> bool:
        with self._lock:
            if not self._closed.is_set():
                self._open.add(one)
                return True
        one.close()
        return False

    def _disown(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)
        one.close()

    def _serve_metadata(self, connection: socket.socket) -> None:
        connection.settimeout(_IDLE_S)
        metadata = self._metadata

        class Handler(_MetadataConnection):
            answer = staticmethod(metadata)

        Handler(connection, connection.getpeername(), None)  # type: ignore[arg-type]

    def _carry(self, connection: socket.socket) -> None:
        api = socket.create_connection(("127.0.0.1", self._endpoint_port), _CONNECT_S)
        api.settimeout(None)
        if not self._own(api):
            return
        back = threading.Thread(target=_pour, args=(api, connection), name="relay", daemon=True)
        back.start()
        try:
            _pour(connection, api)
            back.join()
        finally:
            self._disown(api)


def _pour(source: socket.socket, sink: socket.socket) -> None:
    """Everything from one to the other, and then the end."""
    try:
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    except OSError:  # either side reset it: both must hear of it
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _MetadataConnection(BaseHTTPRequestHandler):
    """One connection to IMDS, several requests long if the client likes."""

    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    answer: MetadataHandler

    def _respond(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > _BODY_LIMIT:
            self.close_connection = True
            self.send_error(413)
            return
        self.rfile.read(int(length))
        request = MetadataRequest(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
        )
        try:
            response = self.answer(request)
        except Exception:  # the machine must get an answer, and we the traceback
            log.exception("IMDS failed at %s", self.path)
            response = MetadataResponse(500)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _respond

    def log_message(self, format: str, *args: object) -> None:
        log.debug("IMDS: %s", format % args)
