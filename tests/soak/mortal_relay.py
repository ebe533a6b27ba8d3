"""A ProxyCommand that breaks: HOST PORT FOLDER CUTS. At random instants it dies, CUTS times in all.

The deaths are counted by files in FOLDER; after the last one it lives as long as its connection.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
from pathlib import Path

# Half of all connections break before they are used, and half while they are.
LONGEST_S = 4.0
CHUNK = 65536


def to_machine(connection: socket.socket) -> None:
    while data := os.read(0, CHUNK):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def die(folder: Path) -> None:
    (folder / f"{time.time_ns()}-{os.getpid()}").touch()
    os._exit(1)


def main(host: str, port: str, folder: Path, cuts: int) -> None:
    connection = socket.create_connection((host, int(port)), 10)
    connection.settimeout(None)
    if len(list(folder.iterdir())) < cuts:
        instant_s = random.uniform(0, 1) ** 2 * LONGEST_S
        dying = threading.Timer(instant_s, die, args=(folder,))
        dying.daemon = True
        dying.start()
    threading.Thread(target=to_machine, args=(connection,), daemon=True).start()
    while data := connection.recv(CHUNK):
        os.write(1, data)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
