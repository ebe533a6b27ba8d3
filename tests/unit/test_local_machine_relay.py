"""The relay over loopback sockets: IMDS answered here, the API's port carried on."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from amibuild.local.machines.base import MetadataRequest, MetadataResponse
from amibuild.local.machines.relay import Relay

DEADLINE_S = 10


class Metadata:
    def __init__(self) -> None:
        self.seen: list[MetadataRequest] = []

    def __call__(self, request: MetadataRequest) -> MetadataResponse:
        self.seen.append(request)
        if request.path == "/breaks":
            raise KeyError("a bug")
        status = 200 if request.method == "GET" else 403
        return MetadataResponse(status, b"i-0abc", headers=(("X-Extra", "yes"),))


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@contextmanager
def relay(metadata: Metadata, endpoint_port: int = 1) -> Iterator[tuple[int, int]]:
    """The ports of IMDS and of the API."""
    listeners = [listener(), listener()]
    ports = listeners[0].getsockname()[1], listeners[1].getsockname()[1]
    with Relay(listeners, metadata, endpoint_port):
        yield ports


def test_a_request_reaches_the_handler_whole_and_its_answer_the_client() -> None:
    metadata = Metadata()
    with relay(metadata) as (port, _):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        client.request("GET", "/latest/meta-data/?x=1", headers={"X-aws-ec2-Metadata-Token": "t"})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"i-0abc")
        assert answer.headers["X-Extra"] == "yes"
        # The same connection again, with a body that the handler does not care for.
        client.request("PUT", "/latest/api/token", body=b"ignored")
        assert client.getresponse().status == 403
        client.close()
    first, second = metadata.seen
    assert (first.method, first.path) == ("GET", "/latest/meta-data/?x=1")
    assert first.headers["x-aws-ec2-metadata-token"] == "t"
    assert (second.method, second.path) == ("PUT", "/latest/api/token")


def test_a_head_request_gets_no_body() -> None:
    with relay(Metadata()) as (port, _):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        client.request("HEAD", "/")
        answer = client.getresponse()
        assert answer.headers["Content-Length"] == "6"
        assert answer.read() == b""
        client.close()


def test_a_broken_handler_is_a_500_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with relay(Metadata()) as (port, _):
        for path, status in (("/breaks", 500), ("/works", 200)):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
            client.request("GET", path)
            assert client.getresponse().status == status
            client.close()
    assert "a bug" in caplog.text


@pytest.mark.parametrize("length", ["-1", "x", "99999999"])
def test_a_body_of_no_sensible_length_is_refused(length: str) -> None:
    metadata = Metadata()
    with (
        relay(metadata) as (port, _),
        socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client,
    ):
        client.sendall(f"PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert b" 413 " in client.makefile("rb").readline()
    assert metadata.seen == []


def echo_after_end(server: socket.socket) -> None:
    """Answers with all that it was sent, once the client has said that this was all."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as incoming:
        connection.sendall(incoming.read())


def test_a_connection_to_the_api_is_carried_both_ways_and_half_closed() -> None:
    sent = bytes(range(256)) * 20_000  # 5 MB: more than any buffer between
    with listener() as server:
        threading.Thread(target=echo_after_end, args=(server,), daemon=True).start()
        with (
            relay(Metadata(), server.getsockname()[1]) as (_, port),
            socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client,
        ):
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as incoming:
                assert incoming.read() == sent


def test_a_connection_to_an_api_that_is_not_there_ends_at_once() -> None:
    with listener() as free:
        port_of_nobody = free.getsockname()[1]
    with (
        relay(Metadata(), port_of_nobody) as (_, port),
        socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client,
    ):
        assert client.recv(1) == b""


def test_closing_ends_listeners_and_open_connections() -> None:
    listeners = [listener(), listener()]
    port = listeners[0].getsockname()[1]
    one = Relay(listeners, Metadata(), 1)
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(1024).startswith(b"HTTP/1.1 200")
        one.close()
        with client.makefile("rb") as rest:
            rest.read()  # to its end, which is here now
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    assert [s.fileno() for s in listeners] == [-1, -1]
