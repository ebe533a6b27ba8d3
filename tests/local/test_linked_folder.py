"""A data folder behind a symbolic link: machines start and end as in any other, and leave nothing.

The kernel knows a loop device's file by its resolved path, whatever name it was opened by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from amibuild.errors import WaitTimeout
from amibuild.local.machines.loops import Loop
from amibuild.local.machines.remains import await_free_loop
from amibuild.local.service import Options, Service
from tests.contract.conftest import REGION, Aws
from tests.local.host import left_on_host, on_host
from tests.local.test_images import PATIENCE_S
from tests.local.test_images import pytestmark as pytestmark
from tests.local.test_volumes import state


@pytest.fixture
def linked(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    link = tmp_path / "linked"
    link.symlink_to(data_dir.resolve())
    monkeypatch.setenv("AMIBUILD_DATA_DIR", str(link))
    service = Service(Options(link, machine="nspawn"))
    key = service.options.key
    session = boto3.Session(key.id, key.secret, region_name=REGION)
    try:
        yield Aws(service, session, timeout_s=PATIENCE_S)
    finally:
        service.close()


def test_a_machine_whose_folder_is_linked_leaves_nothing(linked: Aws) -> None:
    disks = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}}]
    instance = linked.running(InstanceType="t3.small", BlockDeviceMappings=disks)
    mapped = linked.instance(instance)["BlockDeviceMappings"]
    volume = next(m["Ebs"]["VolumeId"] for m in mapped if m["DeviceName"] == "/dev/sdf")
    assert len(on_host()["loops"]) == 2
    linked.ec2.detach_volume(VolumeId=volume)
    linked.until(lambda: state(linked, volume), "available")
    assert len(on_host()["loops"]) == 1
    linked.ec2.terminate_instances(InstanceIds=[instance])
    linked.until_state(instance, "terminated")
    assert "loops" not in on_host()
    linked.service.close()
    assert left_on_host() == {}


def test_a_disk_in_use_is_waited_for_by_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with (tmp_path / "folder/disk.raw").open("wb") as file:
        file.truncate(1 << 20)
    loop = Loop.open(tmp_path / "link/disk.raw")
    try:
        for name in ("folder", "link"):
            with pytest.raises(WaitTimeout):
                await_free_loop(tmp_path / name / "disk.raw", timeout_s=0)
    finally:
        loop.close()
    await_free_loop(tmp_path / "link/disk.raw")
