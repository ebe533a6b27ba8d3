"""Whether this host can really run a virtual machine at speed: tried once, and remembered.

/dev/kvm may exist and even start a machine, yet not run a stock kernel (seen on a host whose
module is kvm_pvm: "KVM internal error" at the kernel's first BMI instruction). So the probe boots
the kernel of the disk at hand until it misses its root file system.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import tempfile
import threading
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from amibuild import proc
from amibuild.errors import HostError, WaitTimeout
from amibuild.local import private
from amibuild.local.disk import file_system, root_partition
from amibuild.local.machines.console import Reader
from amibuild.wait import Look, until

log = logging.getLogger(__name__)

EMULATOR = "qemu-system-x86_64"
# The kernel is there in 1 s when KVM works, in 3 s by emulation.
PROBE_S = 20.0
_OUTPUT_LIMIT = 1 << 18
# What a kernel says last when it has no initrd: everything before has worked.
_BOOTED = b"Unable to mount root"
_BROKEN = b"internal error"
# Before this, QEMU may translate code while another processor changes it, and keep the old: see
# emulation.py. Its commit deba78709a, "accel/tcg: Always lock pages before translation", ends that.
LOCKS_PAGES = (8, 1)


class Accelerator(StrEnum):
    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


class HostFacts(BaseModel):
    """What is remembered, and of which host and QEMU it is true."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: str
    qemu: str
    accelerator: Accelerator


class Acceleration:
    """Finds the accelerator to use, with a disk to try it on. `memory` is a file of our own."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._lock = threading.Lock()

    def __call__(self, disk: Path) -> Accelerator:
        candidate = self.candidate()
        if candidate is Accelerator.TCG:
            return candidate
        with self._lock:
            kernel, qemu = platform.release(), _qemu_version()
            known = self._recall()
            if known is not None and (known.kernel, known.qemu) == (kernel, qemu):
                return known.accelerator
            works = boots(disk, candidate)
            found = candidate if works else Accelerator.TCG
            if not works:
                log.warning("%s does not boot a kernel here: machines are emulated", candidate)
            self._remember(HostFacts(kernel=kernel, qemu=qemu, accelerator=found))
            return found

    @staticmethod
    def candidate() -> Accelerator:
        """What the host seems to have."""
        if sys.platform == "darwin" and platform.machine() == "x86_64":
            return Accelerator.HVF
        if platform.machine() == "x86_64" and os.access("/dev/kvm", os.R_OK | os.W_OK):
            return Accelerator.KVM
        return Accelerator.TCG

    def _recall(self) -> HostFacts | None:
        try:
            return HostFacts.model_validate_json(self._memory.read_bytes())
        except (OSError, ValidationError):  # not tried yet, or by another version: try again
            return None

    def _remember(self, facts: HostFacts) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._memory.with_suffix(f".{os.getpid()}")
        fresh.write_text(facts.model_dump_json(indent=1) + "\n")
        fresh.replace(self._memory)


def boots(disk: Path, accelerator: Accelerator, *, timeout_s: float = PROBE_S) -> bool:
    """Whether the kernel of a disk starts under the accelerator, in time. Leaves the disk alone."""
    # Beside the disk: what is left there of a killed endpoint is removed (leftovers.py).
    with tempfile.TemporaryDirectory(prefix="making-probe-", dir=disk.parent) as folder:
        kernel = Path(folder, "vmlinuz")
        try:
            copy_kernel(disk, kernel)
        except HostError as error:
            log.warning("cannot try %s: %s", accelerator, error)
            return False
        read, write = os.pipe()
        try:
            argv = private.bound(probe_argv(kernel, accelerator))
            qemu = proc.start(argv, stdout=write, stderr=write)
        finally:
            os.close(write)
        output = Reader(read, limit=_OUTPUT_LIMIT, keep_first=False, name="probe")

        def look() -> Look[bool]:
            ended = output.ended()
            said = output.content()
            if _BOOTED in said:
                return Look("booted", value=True)
            if ended or _BROKEN in said:
                return Look("broken", value=False)
            return Look("booting")

        try:
            return until(look, what=f"a kernel under {accelerator}", timeout_s=timeout_s)
        except WaitTimeout:
            return False
        finally:
            qemu.kill()
            qemu.wait()


def probe_argv(kernel: Path, accelerator: Accelerator) -> tuple[str, ...]:
    cpu = "max" if accelerator is Accelerator.TCG else "host"
    return (
        EMULATOR,
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        *("-display", "none"),
        *("-machine", f"q35,accel={accelerator}"),
        *("-cpu", cpu),
        *("-m", "256"),
        *("-kernel", str(kernel)),
        *("-append", "console=ttyS0 panic=-1"),
        *("-serial", "stdio"),
    )


def copy_kernel(disk: Path, target: Path) -> None:
    """The newest kernel in /boot of a disk, read without mounting it.

    Raises: HostError when there is none.
    """
    fs = file_system(disk, root_partition(disk))
    listed = proc.run(["debugfs", "-R", "ls -p /boot", fs]).text
    kernels = re.findall(r"/(vmlinuz-[^/\s]+)/", listed)
    if not kernels:
        raise HostError(f"{disk} has no kernel in /boot")
    newest = max(kernels, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    proc.run(["debugfs", "-R", f"dump /boot/{newest} {target}", fs])


@cache
def loses_changes(accelerator: Accelerator) -> bool:
    """Whether a kernel that changes its own code may run into what it was before."""
    found = re.search(r"version (\d+)\.(\d+)", _qemu_version())
    version = (int(found[1]), int(found[2])) if found else LOCKS_PAGES
    return accelerator is Accelerator.TCG and version < LOCKS_PAGES


def _qemu_version() -> str:
    return proc.run([EMULATOR, "--version"]).text.splitlines()[0]
