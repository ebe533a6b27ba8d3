"""The accelerator's probe really boots a kernel, and tells one that works from one that doesn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.local.machines import choose
from amibuild.local.machines.accelerator import Acceleration, Accelerator, HostFacts, boots
from amibuild.local.machines.base import Driver

pytestmark = pytest.mark.machine


def test_the_kernel_of_the_base_image_boots_by_emulation(base_disk: Path) -> None:
    assert boots(base_disk, Accelerator.TCG, timeout_s=120)


def test_a_deadline_that_passes_is_a_no(base_disk: Path) -> None:
    assert not boots(base_disk, Accelerator.TCG, timeout_s=0.5)


def test_what_was_found_is_remembered(base_disk: Path, tmp_path: Path) -> None:
    memory = tmp_path / "local" / "host.json"
    found = Acceleration(memory)(base_disk)
    if Acceleration.candidate() is Accelerator.TCG:
        assert found is Accelerator.TCG
        assert not memory.exists()
    else:
        assert HostFacts.model_validate_json(memory.read_bytes()).accelerator is found


def test_a_verification_is_booted_in_qemu_whatever_builds(tmp_path: Path) -> None:
    chosen = choose("auto", tmp_path)
    assert chosen("verify").driver is Driver.QEMU
    assert chosen("builder").driver in {Driver.NSPAWN, Driver.QEMU}
    assert choose("qemu", tmp_path)("builder").driver is Driver.QEMU
