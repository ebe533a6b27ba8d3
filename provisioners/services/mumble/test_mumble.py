"""The server answers a ping and a TLS client, and its first password is this machine's alone."""

import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]
Record = Callable[[str, object], None]

SECONDS = 60
IDENT = 0x616D696275696C64


def number(facts: Facts, name: str) -> int:
    (found,) = [p["port"] for p in facts["ports"] if p["name"] == name]
    return int(found)


def test_it_answers_a_ping(facts: Facts, record_property: Record) -> None:
    """Source: Mumble's protocol, "UDP ping packet": type 0 and a number that comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        for _ in range(SECONDS):
            client.sendto(struct.pack(">IQ", 0, IDENT), ("127.0.0.1", number(facts, "voice")))
            try:
                answer = client.recv(64)
                break
            except (TimeoutError, ConnectionRefusedError):
                continue  # it is still making its certificate
        else:
            raise AssertionError(f"no answer in {SECONDS} s")
    _, ident, users, most, _ = struct.unpack(">IQIII", answer)
    assert (ident, users, most) == (IDENT, 0, 50)
    record_property("answers.voice", True)


def test_it_speaks_tls(facts: Facts, record_property: Record) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # its certificate is its own
    address = ("127.0.0.1", number(facts, "control"))
    with (
        socket.create_connection(address, timeout=60) as plain,
        context.wrap_socket(plain) as client,
    ):
        # Its first message is its version: type 0 in two bytes, then its length in four.
        kind, length = struct.unpack(">HI", client.recv(6))
    assert kind == 0
    assert 0 < length < 1000
    record_property("answers.control", True)


def test_superusers_password_is_in_a_file_and_not_in_the_log(host: Host, facts: Facts) -> None:
    kept = f"{facts['state_directory']}/first-password"
    assert host.check_output("stat -c '%%U %%a' %s", kept) == f"{facts['user']} 600"
    password = host.check_output("cat %s", kept)
    assert len(password) == 24
    log = host.check_output("journalctl --unit %s --no-pager", facts["unit"])
    assert password not in log
    assert "Password for 'SuperUser'" not in log
