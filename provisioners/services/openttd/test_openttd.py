"""The server does not only listen: it tells a client which game it runs."""

import socket
import struct
from typing import Any

from testinfra.host import Host

# Each packet begins with its length in two bytes, low one first, and its type. A client may ask
# what is played before it joins. Source: OpenTTD's PacketGameType, 14.
ASK, TELL = 7, 6
HEAD = struct.Struct("<HB")


def test_it_tells_its_game(host: Host, facts: dict[str, Any]) -> None:
    assert host.run("systemctl is-active %s", facts["unit"]).rc == 0
    (port,) = [p["port"] for p in facts["ports"] if p["name"] == "game"]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(HEAD.pack(HEAD.size, ASK))
        answer = b""
        while part := client.recv(4096):
            answer += part
            if len(answer) >= HEAD.size and len(answer) >= HEAD.unpack_from(answer)[0]:
                break
    length, kind = HEAD.unpack_from(answer)
    assert (kind, length) == (TELL, len(answer))
    assert b"A railway on our own host\0" in answer
