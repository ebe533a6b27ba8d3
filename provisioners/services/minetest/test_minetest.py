"""The server does not only listen: it answers a client that says hello."""

import socket
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

# An empty packet from a new client: protocol id, peer 0, channel 0, type 1. The server list of
# luanti.org finds out with the same bytes whether a server is up.
HELLO = bytes.fromhex("4f45740300000001")
SECONDS = 60


def test_it_answers_a_client(
    host: Host, facts: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    assert host.run("systemctl is-active %s", facts["unit"]).rc == 0
    (port,) = facts["ports"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        for _ in range(SECONDS):
            client.sendto(HELLO, ("127.0.0.1", port["port"]))
            try:
                answer = client.recv(1024)
                break
            except TimeoutError:
                continue  # it is still making its world
        else:
            raise AssertionError(f"no answer in {SECONDS} s")
    assert answer[:4] == HELLO[:4]
    record_property("answers.game", True)
