"""Between a guest's connection and a port of this host: `python pipe.py ADDRESS PORT`.

Where no namespace keeps QEMU apart, its `guestfwd` starts this for each connection that the guest
makes to 169.254.169.254; the connection is stdin and stdout. A program of its own, that imports
nothing of amibuild, so that it starts in 15 ms.
"""

from __future__ import annotations

import socket
import sys
import threading


def pour(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # either side went: so do both
        source.close()


def main() -> None:
    guest = socket.socket(fileno=0)
    with guest, socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as host:
        host.settimeout(None)
        back = threading.Thread(target=pour, args=(host, guest), daemon=True)
        back.start()
        pour(guest, host)
        back.join()


if __name__ == "__main__":
    main()
