"""Which disk is in which slot of a QEMU machine, and how it gets out of there again."""

from __future__ import annotations

import contextlib
import threading
import time

from amibuild.errors import HostError
from amibuild.local.machines.base import DataVolume, MachineSpec
from amibuild.local.machines.monitor import Monitor
from amibuild.local.machines.qemu_argv import slots, volume_device, volume_drive

# A guest that still boots hears nothing of it. QEMU refuses a second request while one is open.
ASK_AGAIN_S = 5.0


class QemuVolumes:
    def __init__(self, monitor: Monitor, spec: MachineSpec) -> None:
        self._monitor = monitor
        self._slots: dict[str, str | None] = dict.fromkeys(slots(spec))
        for volume, slot in zip(spec.volumes, self._slots, strict=False):
            self._slots[slot] = volume.volume_id
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def plug(self, volume: DataVolume) -> None:
        """Raises: HostError."""
        with self._lock:
            slot = next((name for name, held in self._slots.items() if held is None), None)
            if slot is None:
                raise HostError(
                    f"the machine has {len(self._slots)} slots for disks, and all are taken",
                    hint="name the volumes when it is launched",
                )
            self._monitor.plug_in(volume_drive(volume, slot), volume_device(volume, slot))
            self._slots[slot] = volume.volume_id

    def unplug(self, volume_id: str) -> bool:
        """Raises: HostError."""
        with self._lock:
            slot = next((name for name, held in self._slots.items() if held == volume_id), None)
            if slot is None:
                return True
            device = f"plugged-{slot}"
            if self._monitor.unplugged(device):
                self._monitor.forget_drive(f"disk-{slot}")
                self._slots[slot] = None
                self._asked.pop(slot, None)
                return True
            if time.monotonic() - self._asked.get(slot, float("-inf")) > ASK_AGAIN_S:
                again = slot in self._asked
                self._asked[slot] = time.monotonic()
                with contextlib.suppress(HostError) if again else contextlib.nullcontext():
                    self._monitor.ask_to_unplug(device)
            return False
