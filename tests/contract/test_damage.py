"""A store with cut and missing files, as EC2's clients see it: a state and a reason, not a gap.

Source of the states: EC2 API reference, Image (state, stateReason), Snapshot (status,
statusMessage); "Error codes" for what refuses to use them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amibuild.local.blocks import SIZE
from tests.contract.conftest import REGION, Aws, Refuses, Start


@dataclass(frozen=True)
class Made:
    """An endpoint's store after it has ended: one image with a block of its own, one beside it."""

    store: Path
    image: str
    snapshot: str
    other: str

    @property
    def block(self) -> Path:
        (line,) = (self.store / f"snapshots/{self.snapshot}.blocks").read_text().splitlines()
        digest = line.split()[1]
        return self.store / "blocks" / digest[:2] / digest


def captured(aws: Aws, name: str, content: bytes) -> str:
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(content)
    image = aws.ec2.create_image(InstanceId=instance, Name=name)["ImageId"]
    aws.until(lambda: aws.image_state(image), "available")
    return image


@pytest.fixture
def made(start: Start) -> Made:
    aws = start()
    image, other = captured(aws, "harmed", b"harmed"), captured(aws, "whole", b"whole")
    snapshot = described(aws, image)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    return Made(aws.service.options.root / "store", image, snapshot, other)


def described(aws: Aws, image: str) -> dict[str, Any]:
    return dict(aws.ec2.describe_images(ImageIds=[image])["Images"][0])


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path) -> None:
    path.unlink()


HARM: dict[str, Callable[[Made], Path]] = {
    "record": lambda made: made.store / f"snapshots/{made.snapshot}.json",
    "list": lambda made: made.store / f"snapshots/{made.snapshot}.blocks",
    "block": lambda made: made.block,
}


@pytest.mark.parametrize("how", [cut, remove])
@pytest.mark.parametrize("what", list(HARM))
def test_an_image_without_its_disk_is_failed_with_the_file_that_it_lacks(
    start: Start, made: Made, refuses: Refuses, what: str, how: Callable[[Path], None]
) -> None:
    file = HARM[what](made)
    how(file)
    aws = start()
    image = described(aws, made.image)
    assert (image["State"], image["Name"]) == ("failed", "harmed")
    assert str(file) in image["StateReason"]["Message"]
    snapshot = aws.ec2.describe_snapshots(SnapshotIds=[made.snapshot])["Snapshots"][0]
    assert snapshot["State"] == "error"
    assert str(file) in snapshot["StateMessage"]
    assert any(str(file) in problem for problem in aws.service._status()["store"]["damaged"])
    refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=made.image)
    zone: dict[str, Any] = {"SnapshotId": made.snapshot, "AvailabilityZone": f"{REGION}a"}
    refuses("IncorrectState", aws.ec2.create_volume, **zone)

    # The rest still works, and what is lost can be forgotten, after a restart too.
    assert aws.running(ImageId=made.other)
    aws.ec2.deregister_image(ImageId=made.image)
    aws.ec2.delete_snapshot(SnapshotId=made.snapshot)
    aws = start()
    assert aws.service._status()["store"]["damaged"] == []
    assert aws.ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"] == made.other
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_an_image_whose_own_record_is_cut_is_invalid(
    start: Start, made: Made, refuses: Refuses
) -> None:
    file = made.store / f"images/{made.image}.json"
    cut(file)
    aws = start()
    image = described(aws, made.image)
    assert image["State"] == "invalid"
    assert str(file) in image["StateReason"]["Message"]
    refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=made.image)
    assert described(aws, made.other)["State"] == "available"
    aws.ec2.deregister_image(ImageId=made.image)
    assert not file.exists()


def test_a_block_that_holds_the_wrong_bytes_is_found_when_it_is_used(
    start: Start, made: Made, refuses: Refuses
) -> None:
    """Its size is right: only a launch reads it."""
    made.block.write_bytes(os.urandom(SIZE))
    aws = start()
    assert described(aws, made.image)["State"] == "available"
    instance = aws.launch(ImageId=made.image)
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"]["Code"] == "Server.InternalError"
    image = described(aws, made.image)
    assert image["State"] == "failed"
    assert str(made.block) in image["StateReason"]["Message"]
    refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=made.image)
    assert aws.running(ImageId=made.other)


def test_a_volume_of_such_a_snapshot_ends_in_error(start: Start, made: Made) -> None:
    """CreateVolume: "If the volume could not be created: error"."""
    made.block.write_bytes(os.urandom(SIZE))
    aws = start()
    asked: dict[str, Any] = {"SnapshotId": made.snapshot, "AvailabilityZone": f"{REGION}a"}
    volume = aws.ec2.create_volume(**asked)["VolumeId"]

    def state() -> str:
        return aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"]

    aws.until(state, "error")
    assert described(aws, made.image)["State"] == "failed"
    aws.ec2.delete_volume(VolumeId=volume)
