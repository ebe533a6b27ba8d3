"""QEMU's own control channel: the power button, second disks, and word of resets.

Source: QEMU QMP Reference Manual (system_powerdown, blockdev-add, device_add, event RESET).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import socket
import threading
from pathlib import Path

from amibuild.errors import HostError

REPLY_S = 10.0


class Monitor:
    def __init__(self, channel: socket.socket, *, name: str) -> None:
        self._channel = channel
        self._resets = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._replies: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name=f"monitor-{name}", daemon=True).start()
        self._send("qmp_capabilities", {}, number=0)

    @property
    def resets(self) -> int:
        """How often the machine started anew without its QEMU ending."""
        return self._resets

    def press_power_button(self) -> None:
        with contextlib.suppress(HostError):  # a machine that has ended has no button
            self.call("system_powerdown", {})

    def plug_in(self, disk: Path, serial: str, *, slot: str) -> None:
        """Raises: HostError when the slot is taken, or the machine has ended."""
        node = f"disk-{slot}"
        file: dict[str, object] = {"driver": "file", "filename": str(disk), "aio": "threads"}
        drive: dict[str, object] = {"driver": "raw", "node-name": node, "file": file}
        self.call("blockdev-add", {**drive, "cache": {"no-flush": True}})
        device: dict[str, object] = {"driver": "virtio-blk-pci", "drive": node, "serial": serial}
        self.call("device_add", {**device, "bus": slot, "id": f"plugged-{slot}"})

    def call(self, command: str, arguments: dict[str, object]) -> object:
        """What the command returns. Raises: HostError."""
        with self._lock:
            number = next(self._numbers)
            try:
                self._send(command, arguments, number=number)
                while (reply := self._replies.get(timeout=REPLY_S)).get("id") != number:
                    if not reply:
                        self._replies.put({})  # for the next who asks
                        raise HostError("the machine has ended")
            except (OSError, queue.Empty) as error:
                raise HostError(f"QEMU does not answer {command}") from error
        if "error" in reply:
            raise HostError(f"QEMU refused {command}: {reply['error']}")
        return reply["return"]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _send(self, command: str, arguments: dict[str, object], *, number: int) -> None:
        request = {"execute": command, "arguments": arguments, "id": number}
        self._channel.sendall(json.dumps(request).encode() + b"\n")

    def _listen(self) -> None:
        with self._channel, contextlib.suppress(OSError), self._channel.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if message.get("event") == "RESET":
                    self._resets += 1
                elif "id" in message:
                    self._replies.put(message)
        self._replies.put({})
