"""The server does not only listen: it tells a client which game it runs."""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

# Each packet begins with its length in two bytes, low one first, and its type. A client may ask
# what is played before it joins. Source: OpenTTD's PacketGameType, 14.
ASK, TELL = 7, 6
HEAD = struct.Struct("<HB")
# A map takes a second to make; under emulation, with other work on the cores, a minute and more.
LONGEST_S = 240


def answered(port: int) -> bytes:
    """What it says, as soon as it says anything.

    It listens before it has a map. Stopped while it made one, it leaves half of it as its saved
    game, ends when that can't be loaded, and is started again with a new one.
    """
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(HEAD.pack(HEAD.size, ASK))
                answer = b""
                while part := client.recv(4096):
                    answer += part
                    if len(answer) >= HEAD.size and len(answer) >= HEAD.unpack_from(answer)[0]:
                        return answer
        except (ConnectionRefusedError, ConnectionResetError, TimeoutError):
            pass
        time.sleep(1)
    raise AssertionError("it answers nobody")


def test_it_tells_its_game(
    host: Host, facts: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    ask(host, facts)
    record_property("answers.game", True)


def ask(host: Host, facts: dict[str, Any]) -> None:
    (port,) = [p["port"] for p in facts["ports"] if p["name"] == "game"]
    answer = answered(port)
    assert host.run("systemctl is-active %s", facts["unit"]).rc == 0
    length, kind = HEAD.unpack_from(answer)
    assert (kind, length) == (TELL, len(answer))
    assert b"A railway on our own host\0" in answer


def test_it_goes_on_with_the_game_that_it_saved(host: Host, facts: dict[str, Any]) -> None:
    ask(host, facts)  # or there would be no map to save yet
    host.check_output("systemctl restart %s", facts["unit"])
    ask(host, facts)
    assert host.file(f"{facts['state_directory']}/openttd/save/autosave/start.sav").size > 0
    # Of this start alone: a slow machine's journal once lacked what the one before it had said.
    shown = "systemctl show --property=InvocationID --value %s"
    started = host.check_output(shown, facts["unit"])
    host.check_output("journalctl --sync")
    said = "journalctl --quiet --no-pager --output=cat _SYSTEMD_INVOCATION_ID=%s"
    log = host.check_output(said, started)
    assert log
    assert "Generating map" not in log
