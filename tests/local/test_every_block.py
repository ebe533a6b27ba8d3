"""The look at a finished disk on a real machine: what is deleted there is found, and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amibuild.communicator.ssm import SsmCommunicator
from amibuild.library.load import hygiene_rules
from amibuild.project import load_project
from amibuild.verify.disk import DEVICE, Finding, hygiene_started
from amibuild.verify.known import KnownValues
from amibuild.wait import silent
from tests.contract.conftest import Aws
from tests.local.scenario import REPOSITORY
from tests.local.steps import installing
from tests.local.test_images import aws as aws  # the fixture
from tests.local.test_images import on
from tests.local.test_volumes import snapshot

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,  # test_scenario.py has a bake that ends because of a key left behind
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

SECRET = "nU7-value.of_the+bake/4qZ"
PUBLIC = ("/srv/public keys", "/srv/none")
PLANT = f"""
printf 'token = %s\\n' '{SECRET}' >/srv/left-behind
printf 'token = %s\\n' '{SECRET}' >/srv/deleted
ssh-keygen -q -t ed25519 -N '' -f /srv/key
mkdir '/srv/public keys'
ssh-keygen -q -t ed25519 -N '' -f '/srv/public keys/one'
sync
rm /srv/deleted
"""
# What the kernel still had in the file system's journal goes where it belongs, as at a shutdown.
SETTLE = "sync; fsfreeze --freeze / && fsfreeze --unfreeze /"


def look(aws: Aws, machine: str, log: Path, known: KnownValues) -> list[Finding]:
    """At the blocks of a copy of the machine's own disk, as it is now."""
    on(aws, machine, SETTLE)
    disk = aws.instance(machine)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    size_gib = aws.ec2.describe_volumes(VolumeIds=[disk])["Volumes"][0]["Size"]
    zone = aws.instance(machine)["Placement"]["AvailabilityZone"]
    copy = aws.ec2.create_volume(SnapshotId=snapshot(aws, disk), AvailabilityZone=zone)["VolumeId"]
    aws.ec2.get_waiter("volume_available").wait(VolumeIds=[copy])
    aws.ec2.attach_volume(VolumeId=copy, InstanceId=machine, Device=DEVICE)
    communicator = SsmCommunicator(aws.cloud.ssm, machine)
    parts = hygiene_rules()
    with hygiene_started(
        communicator, copy, size_gib, parts, known, PUBLIC, log, silent
    ) as its_end:
        report = its_end()
    aws.ec2.detach_volume(VolumeId=copy, InstanceId=machine)
    assert "every block of" in log.read_text()
    return [one for one in report.failed if " block" in one.rule]


def test_what_was_planted_is_found_with_its_file_and_a_sealed_disk_has_nothing_else(
    aws: Aws, tmp_path: Path
) -> None:
    machine = aws.running(InstanceType="t3.small")
    on(aws, machine, PLANT)
    known = KnownValues()
    known.add("the token", SECRET)

    found = look(aws, machine, tmp_path / "log", known)
    values = [one for one in found if one.detail.startswith("holds the token, at byte ")]
    assert sorted(one.path for one in values) == [
        "/srv/left-behind",
        "in no file (of a deleted one, or never used)",
    ]
    keys = {one.path for one in found if "openssh private key, at byte" in one.detail}
    assert {"/srv/key", "/etc/ssh/ssh_host_ed25519_key"} <= keys
    assert not any(SECRET in one.model_dump_json() for one in found)

    # Deleting them would leave them in their blocks, as it did.
    on(aws, machine, installing(load_project(REPOSITORY / "amibuild.toml").steps[-1]))
    sealed = look(aws, machine, tmp_path / "log", KnownValues())
    assert {one.path for one in sealed if "private key" in one.detail} == {"/srv/key"}
