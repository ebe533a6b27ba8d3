"""QEMU's own control channel: the buttons, the pause, disks, and word of resets.

Source: QEMU QMP Reference Manual (system_powerdown, system_reset, stop, cont, blockdev-add,
device_add, device_del, events RESET and DEVICE_DELETED).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import socket
import threading

from amibuild.errors import HostError

REPLY_S = 10.0


class Monitor:
    def __init__(self, channel: socket.socket, *, name: str) -> None:
        self._channel = channel
        self._resets = 0
        self._deleted: set[str] = set()
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

    def reset(self) -> None:
        """As the button of that name. Raises: HostError."""
        self.call("system_reset", {})

    def plug_in(self, drive: dict[str, object], device: dict[str, object]) -> None:
        """Raises: HostError when the slot is taken, or the machine has ended."""
        self._deleted.discard(str(device["id"]))
        self.call("blockdev-add", drive)
        try:
            self.call("device_add", device)
        except HostError:
            self.call("blockdev-del", {"node-name": drive["node-name"]})
            raise

    def ask_to_unplug(self, device: str) -> None:
        """The guest lets go of it in its own time, or not at all. Raises: HostError."""
        self.call("device_del", {"id": device})

    def unplugged(self, device: str) -> bool:
        return device in self._deleted

    def forget_drive(self, node: str) -> None:
        """Closes the file of a disk that is unplugged. Raises: HostError."""
        self.call("blockdev-del", {"node-name": node})

    def pause(self) -> None:
        """No instruction runs from now on, and all that was written is in the disks' files."""
        self.call("stop", {})

    def go_on(self) -> None:
        self.call("cont", {})

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
                elif message.get("event") == "DEVICE_DELETED":
                    # Also one for the bus inside it, which has no name.
                    self._deleted.add(message["data"].get("device", ""))
                elif "id" in message:
                    self._replies.put(message)
        self._replies.put({})
