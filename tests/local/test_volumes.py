"""Volumes of real machines by EC2's own calls: launched with, attached, snapshot, taken away."""

from __future__ import annotations

from pathlib import Path

from tests.contract.conftest import REGION, Aws
from tests.local.test_images import aws as aws  # the fixture
from tests.local.test_images import on
from tests.local.test_images import pytestmark as pytestmark

DEVICE = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}"


def device(volume: str) -> str:
    return DEVICE.format(serial=volume.replace("-", ""))


def state(aws: Aws, volume: str) -> str:
    """With that of its attachment, where it has one."""
    found = aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
    return "/".join([found["State"], *(a["State"] for a in found["Attachments"])])


def snapshot(aws: Aws, volume: str) -> str:
    made = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]

    def seen() -> str:
        return aws.ec2.describe_snapshots(SnapshotIds=[made])["Snapshots"][0]["State"]

    aws.until(seen, "completed")
    return made


def test_what_is_written_to_a_volume_goes_where_the_volume_goes(aws: Aws) -> None:
    small = {"InstanceType": "t3.small", "Placement": {"AvailabilityZone": f"{REGION}a"}}
    disks = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}}]
    first = aws.running(BlockDeviceMappings=disks, **small)
    mapped = aws.instance(first)["BlockDeviceMappings"]
    volume = next(m["Ebs"]["VolumeId"] for m in mapped if m["DeviceName"] == "/dev/sdf")
    on(aws, first, f"mkfs.ext4 -q {device(volume)}; mkdir /data; mount {device(volume)} /data")
    on(aws, first, "echo kept > /data/file; sync")

    # A snapshot of it while it is mounted, and an image of the machine that runs on.
    taken = snapshot(aws, volume)
    on(aws, first, "echo running > /root/mark; sync")
    image = aws.ec2.create_image(InstanceId=first, Name=f"of-{volume}", NoReboot=True)["ImageId"]
    aws.until(lambda: aws.image_state(image), "available")
    assert on(aws, first, "cat /data/file") == "kept\n"  # it did run on, with all its disks

    # It lets go of the volume once it has unmounted it, and not before.
    aws.ec2.detach_volume(VolumeId=volume)
    assert state(aws, volume) == "in-use/detaching"
    on(aws, first, "umount /data")
    aws.until(lambda: state(aws, volume), "available")
    assert on(aws, first, f"ls {device(volume)} || echo gone") == "gone\n"

    # Another machine, of that image, has the image's own volume and takes this one; so it stays
    # over a stop and a start.
    second = aws.running(ImageId=image, **small)
    assert on(aws, second, "cat /root/mark") == "running\n"
    assert on(aws, second, "ls /dev/disk/by-id | wc -l") == "1\n"
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdg")
    assert on(aws, second, f"mount {device(volume)} /mnt && cat /mnt/file") == "kept\n"
    aws.ec2.stop_instances(InstanceIds=[second])
    aws.until_state(second, "stopped")
    aws.ec2.start_instances(InstanceIds=[second])
    aws.until(lambda: aws.ping(second), "Online")
    assert on(aws, second, f"mount {device(volume)} /mnt && cat /mnt/file") == "kept\n"

    # And the snapshot is a volume again.
    asked = {"SnapshotId": taken, "AvailabilityZone": f"{REGION}a"}
    again = aws.ec2.create_volume(**asked)["VolumeId"]  # type: ignore[arg-type]
    aws.until(lambda: state(aws, again), "available")
    aws.ec2.attach_volume(VolumeId=again, InstanceId=first, Device="/dev/sdf")
    assert on(aws, first, f"mount {device(again)} /data && cat /data/file") == "kept\n"

    aws.ec2.terminate_instances(InstanceIds=[first, second])
    for one in (first, second):
        aws.until_state(one, "terminated")
    assert (state(aws, volume), state(aws, again)) == ("available", "available")
    aws.ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    aws.ec2.delete_snapshot(SnapshotId=taken)
    assert [p for p in Path("/sys/block").glob("loop*/loop/backing_file") if _ours(p, aws)] == []


def _ours(backing: Path, aws: Aws) -> bool:
    try:
        return str(aws.service.options.local.resolve()) in backing.read_text()
    except OSError:  # it went while we looked
        return False
