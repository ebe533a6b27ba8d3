"""QEMU's own control channel: presses the power button, and hears of resets.

Source: QEMU QMP Reference Manual (system_powerdown, event RESET).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading


class Monitor:
    def __init__(self, channel: socket.socket, *, name: str) -> None:
        self._channel = channel
        self._resets = 0
        threading.Thread(target=self._listen, name=f"monitor-{name}", daemon=True).start()
        self._send("qmp_capabilities")

    @property
    def resets(self) -> int:
        """How often the machine started anew without its QEMU ending."""
        return self._resets

    def press_power_button(self) -> None:
        self._send("system_powerdown")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _send(self, command: str) -> None:
        with contextlib.suppress(OSError):  # a machine that has ended has no button
            self._channel.sendall(json.dumps({"execute": command}).encode() + b"\n")

    def _listen(self) -> None:
        with self._channel, contextlib.suppress(OSError), self._channel.makefile("rb") as lines:
            for line in lines:
                if json.loads(line).get("event") == "RESET":
                    self._resets += 1
