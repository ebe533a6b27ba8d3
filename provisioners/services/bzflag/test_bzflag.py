"""The server does not only listen: it greets a client as its protocol says."""

import socket
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

# What a client of BZFlag 2.4 says first; the server's answer tells its protocol's version.
HELLO = b"BZFLAG\r\n\r\n"
GREETING = b"BZFS02"


def test_it_greets_a_client(
    host: Host, facts: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    assert host.run("systemctl is-active %s", facts["unit"]).rc == 0
    (port,) = [p["port"] for p in facts["ports"] if p["name"] == "game"]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(HELLO)
        greeting = b""
        while len(greeting) < len(GREETING) and (part := client.recv(64)):
            greeting += part
    assert greeting.startswith(GREETING)
    record_property("answers.game", True)
