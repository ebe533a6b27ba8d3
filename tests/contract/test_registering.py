"""RegisterImage: an image from a snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.imaged import MISSING_SNAPSHOT, image, snapshot_of, tagged, tags_of

API = "EC2 API reference, RegisterImage"
DEVICE = "EC2 API reference, EbsBlockDevice"
CODES = "EC2 API reference, Error codes"


def asked(snapshot: str, **changes: Any) -> dict[str, Any]:
    ebs = {"SnapshotId": snapshot, **changes.pop("Ebs", {})}
    return {
        "Name": "registered",
        "RootDeviceName": "/dev/xvda",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs}],
        **changes,
    }


@answers(
    "RegisterImage",
    "from a snapshot, with everything that an image can say",
    "an image that says it",
    source=API,
)
def test_it_says_what_it_was_given_and_lasts(start: Start) -> None:
    aws = start()
    source = snapshot_of(aws, aws.image())
    request = asked(
        source,
        Description="by hand",
        BootMode="uefi-preferred",
        ImdsSupport="v2.0",
        TpmSupport="v2.0",
        EnaSupport=True,
        SriovNetSupport="simple",
        TagSpecifications=tagged("image", a="1"),
        Ebs={"VolumeSize": 5, "VolumeType": "gp3", "Iops": 4000, "Throughput": 200},
    )
    made = aws.ec2.register_image(**request)["ImageId"]
    before = image(aws, made)
    said = ["Name", "Description", "BootMode", "ImdsSupport", "TpmSupport", "EnaSupport"]
    said += ["SriovNetSupport", "Architecture", "VirtualizationType", "RootDeviceName"]
    assert [before[key] for key in said] == [request[key] for key in said]
    assert (before["State"], before["Public"], tags_of(before)) == ("available", False, {"a": "1"})
    (device,) = before["BlockDeviceMappings"]
    assert device["Ebs"] == {
        "SnapshotId": source,
        "VolumeSize": 5,
        "VolumeType": "gp3",
        "Iops": 4000,
        "Throughput": 200,
        "DeleteOnTermination": True,
        "Encrypted": False,
    }
    assert image(start(), made) == before


@answers(
    "RegisterImage",
    "of a disk's snapshot; then RunInstances",
    "machines start from that disk",
    source=API,
)
def test_what_the_snapshot_holds_is_on_the_machines_disk(aws: Aws) -> None:
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(b"kept")
    made = aws.image("captured", InstanceId=instance)
    registered = aws.ec2.register_image(**asked(snapshot_of(aws, made)))["ImageId"]
    with aws.machine(aws.running(ImageId=registered)).spec.disk.open("rb") as disk:
        assert disk.read(4) == b"kept"


@answers(
    "RegisterImage",
    "without architecture, virtualization or boot mode",
    "i386, paravirtual, no boot mode, no ENA",
    source=API,
)
def test_its_defaults_are_those_of_old(aws: Aws) -> None:
    request = asked(snapshot_of(aws, aws.image()))
    del request["Architecture"], request["VirtualizationType"]
    found = image(aws, aws.ec2.register_image(**request)["ImageId"])
    assert (found["Architecture"], found["VirtualizationType"]) == ("i386", "paravirtual")
    assert found["EnaSupport"] is False
    assert not {"BootMode", "ImdsSupport", "TpmSupport", "SriovNetSupport"} & set(found)


@answers("RegisterImage", "a name of the account", "InvalidAMIName.Duplicate", source=CODES)
def test_a_name_is_taken_once(aws: Aws, refuses: Refuses) -> None:
    source = snapshot_of(aws, aws.image("taken"))
    refuses("InvalidAMIName.Duplicate", aws.ec2.register_image, **asked(source, Name="taken"))
    refuses("InvalidAMIName.Malformed", aws.ec2.register_image, **asked(source, Name="what?"))


@answers("RegisterImage", "a snapshot that is not there", "InvalidSnapshot.NotFound", source=CODES)
@answers("RegisterImage", "an id that is none", "InvalidSnapshotID.Malformed", source=CODES)
def test_an_unknown_snapshot_is_refused(aws: Aws, refuses: Refuses) -> None:
    refuses("InvalidSnapshot.NotFound", aws.ec2.register_image, **asked(MISSING_SNAPSHOT))
    refuses("InvalidSnapshotID.Malformed", aws.ec2.register_image, **asked("snap-none"))


@answers("RegisterImage", "a snapshot that is pending", "IncorrectState", source=CODES)
def test_a_pending_snapshot_is_refused(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    pending = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    refuses("IncorrectState", aws.ec2.register_image, **asked(snapshot_of(aws, pending)))


@answers(
    "RegisterImage",
    "Encrypted beside a snapshot",
    "InvalidBlockDeviceMapping: the encrypted flag cannot be specified",
    source=f"{API}, BlockDeviceMapping; the words: packer, issue 2285",
)
@answers(
    "RegisterImage",
    "a volume smaller than its snapshot",
    "InvalidBlockDeviceMapping",
    source=f"{DEVICE}, VolumeSize",
)
@pytest.mark.parametrize("ebs", [{"Encrypted": True}, {"Encrypted": False}, {"VolumeSize": 1}])
def test_what_a_snapshot_fixes_cannot_be_asked_for(
    aws: Aws, refuses: Refuses, ebs: dict[str, Any]
) -> None:
    request = asked(snapshot_of(aws, aws.image()), Ebs=ebs)
    refuses("InvalidBlockDeviceMapping", aws.ec2.register_image, **request)


@answers(
    "RegisterImage",
    "a root device without a snapshot, twice the same device, a volume without a size",
    "InvalidBlockDeviceMapping",
    source=CODES,
)
def test_a_mapping_that_makes_no_sense_is_refused(aws: Aws, refuses: Refuses) -> None:
    source = snapshot_of(aws, aws.image())
    (root,) = asked(source)["BlockDeviceMappings"]
    for mappings in (
        [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}],
        [{"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": source}}],
        [root, root],
        [root, {"DeviceName": "/dev/sdb", "Ebs": {"DeleteOnTermination": True}}],
    ):
        request = asked(source, BlockDeviceMappings=mappings)
        refuses("InvalidBlockDeviceMapping", aws.ec2.register_image, **request)


@answers(
    "RegisterImage", "without a root device's name or mappings", "MissingParameter", source=CODES
)
def test_what_is_needed_is_named(aws: Aws, refuses: Refuses) -> None:
    for key in ("RootDeviceName", "BlockDeviceMappings"):
        request = asked(snapshot_of(aws, aws.image(f"for {key}")))
        del request[key]
        assert key in refuses("MissingParameter", aws.ec2.register_image, **request)


@answers(
    "RegisterImage",
    "further volumes, with a snapshot or empty",
    "all of them in the image's mapping",
    source=f"{API}, BlockDeviceMapping",
)
def test_it_may_have_several_volumes(aws: Aws, refuses: Refuses) -> None:
    source = snapshot_of(aws, aws.image())
    mappings = [
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}},
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": source}},
        {"DeviceName": "/dev/sdg", "Ebs": {"SnapshotId": source}},
    ]
    made = aws.ec2.register_image(**asked(source, BlockDeviceMappings=mappings))["ImageId"]
    found = image(aws, made)["BlockDeviceMappings"]
    assert [m["DeviceName"] for m in found] == ["/dev/xvda", "/dev/sdf", "/dev/sdg"]
    assert "SnapshotId" not in found[1]["Ebs"]
    assert found[1]["Ebs"]["DeleteOnTermination"] is False
    refuses("InvalidSnapshot.InUse", aws.ec2.delete_snapshot, SnapshotId=source)


@answers(
    "RegisterImage",
    "from a manifest in S3, with a kernel, product codes or UEFI variables",
    "an image",
    source=API,
    ours="UnsupportedOperation that names the parameter",
)
@pytest.mark.parametrize(
    "extra", [{"ImageLocation": "b/m.xml"}, {"KernelId": "aki-1"}, {"UefiData": "eA=="}]
)
def test_what_has_no_effect_here_is_refused_by_name(
    aws: Aws, refuses: Refuses, extra: dict[str, Any]
) -> None:
    request = asked(snapshot_of(aws, aws.image()), **extra)
    message = refuses("UnsupportedOperation", aws.ec2.register_image, **request)
    assert next(iter(extra)) in message


@answers("RegisterImage", "a value outside its choices", "InvalidParameterValue", source=CODES)
@pytest.mark.parametrize(
    "extra",
    [{"BootMode": "coreboot"}, {"ImdsSupport": "v1.0"}, {"Architecture": "vax"}],
)
def test_only_known_values_are_taken(aws: Aws, refuses: Refuses, extra: dict[str, Any]) -> None:
    request = asked(snapshot_of(aws, aws.image()), **extra)
    refuses("InvalidParameterValue", aws.ec2.register_image, **request)


@answers(
    "RegisterImage",
    "DryRun",
    "DryRunOperation, and no image",
    source=f"{API}, DryRun",
)
def test_a_dry_run_makes_nothing(aws: Aws, refuses: Refuses) -> None:
    request = asked(snapshot_of(aws, aws.image()), DryRun=True)
    refuses("DryRunOperation", aws.ec2.register_image, **request)
    assert len(aws.ec2.describe_images(Owners=["self"])["Images"]) == 1
