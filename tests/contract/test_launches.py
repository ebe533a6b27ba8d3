"""RunInstances: what it refuses, and what it does with what it takes."""

from __future__ import annotations

import pytest

from amibuild.local.machines.none import NoMachine
from tests.contract.conftest import Aws, Refuses, Start

# EC2 user guide, "Run commands at launch": 16 KB in raw form, before base64.
LIMIT = 16_384


def test_an_image_that_is_not_there_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIID.NotFound."""
    missing = "ami-0123456789abcdef0"
    message = refuses("InvalidAMIID.NotFound", aws.launch, ImageId=missing)
    assert message == f"The image id '[{missing}]' does not exist"


def test_an_id_that_is_none_is_malformed(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIID.Malformed."""
    message = refuses("InvalidAMIID.Malformed", aws.launch, ImageId="ami-debian")
    assert message == 'Invalid id: "ami-debian" (expecting "ami-...")'


def test_a_pending_image_cannot_be_launched(start: Start, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIID.Unavailable."""
    aws = start(latency="image=60")
    image = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=image)


def test_a_parameter_can_name_the_image(aws: Aws) -> None:
    """RunInstances, ImageId: `resolve:ssm:parameter-name`; the instance has the image's id."""
    name = "resolve:ssm:/aws/service/debian/release/13/latest/amd64"
    assert aws.instance(aws.launch(ImageId=name))["ImageId"] == aws.base


def test_user_data_may_have_16384_bytes(aws: Aws) -> None:
    instance = aws.launch(UserData="x" * LIMIT)
    kept = aws.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    assert len(kept["UserData"]["Value"]) == 21_848  # base64 of 16,384 bytes


def test_user_data_over_16384_bytes_is_refused(aws: Aws, refuses: Refuses) -> None:
    message = refuses("InvalidParameterValue", aws.launch, UserData="x" * (LIMIT + 1))
    assert message == "User data is limited to 16384 bytes"


def test_a_token_gives_the_same_instance_again(aws: Aws) -> None:
    """EC2 API reference, "Ensuring idempotency"."""
    first = aws.launch(ClientToken="a-token")
    assert aws.launch(ClientToken="a-token") == first
    reservations = aws.ec2.describe_instances()["Reservations"]
    assert [i["InstanceId"] for r in reservations for i in r["Instances"]] == [first]


def test_a_token_with_other_parameters_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: IdempotentParameterMismatch."""
    aws.launch(ClientToken="a-token")
    refuses(
        "IdempotentParameterMismatch",
        aws.launch,
        ClientToken="a-token",
        InstanceType="c7i.xlarge",
    )


def test_a_volume_smaller_than_its_snapshot_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidBlockDeviceMapping."""
    small = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}]
    message = refuses("InvalidBlockDeviceMapping", aws.launch, BlockDeviceMappings=small)
    assert "is smaller than snapshot" in message


def test_the_root_volume_is_as_large_as_asked_and_made_from_the_snapshot(aws: Aws) -> None:
    """RunInstances, BlockDeviceMappings; gp3 has 3,000 IOPS and 125 MB/s (EBS user guide)."""
    ebs = {"VolumeSize": 8, "VolumeType": "gp3", "Encrypted": True}
    instance = aws.launch(BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": ebs}])
    (mapping,) = aws.instance(instance)["BlockDeviceMappings"]
    volume = aws.ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"][0]
    base = aws.ec2.describe_images(ImageIds=[aws.base])["Images"][0]
    assert volume["SnapshotId"] == base["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    seen = [volume[k] for k in ("Size", "VolumeType", "Encrypted", "Iops", "Throughput")]
    assert seen == [8, "gp3", True, 3000, 125]
    aws.until_state(instance, "running")
    assert aws.machine(instance).spec.disk.stat().st_size == 8 << 30


def test_without_a_size_the_volume_has_the_snapshots(aws: Aws) -> None:
    """RunInstances, Ebs.VolumeSize: "the default is the snapshot size"."""
    kind = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "gp3"}}]
    instance = aws.launch(BlockDeviceMappings=kind)
    volumes = aws.ec2.describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance]}]
    )["Volumes"]
    assert [v["Size"] for v in volumes] == [2]


def test_tags_of_the_call_are_on_instance_volume_and_interface(aws: Aws) -> None:
    """RunInstances, TagSpecifications: instance, volume, network-interface."""
    kinds = ("instance", "volume", "network-interface")
    tagged = [{"ResourceType": k, "Tags": [{"Key": "for", "Value": k}]} for k in kinds]
    instance = aws.launch(TagSpecifications=tagged)
    found = aws.ec2.describe_tags(Filters=[{"Name": "key", "Values": ["for"]}])["Tags"]
    assert {t["ResourceType"]: t["Value"] for t in found} == {k: k for k in kinds}
    assert {"Key": "for", "Value": "instance"} in aws.instance(instance)["Tags"]


def test_an_unknown_instance_type_is_refused(aws: Aws, refuses: Refuses) -> None:
    """Measured on EC2 by others: InvalidParameterValue (hashicorp/packer-plugin-amazon issues)."""
    message = refuses("InvalidParameterValue", aws.launch, InstanceType="c99.large")
    assert message == "Invalid value 'c99.large' for InstanceType."


def test_a_type_of_another_architecture_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 user guide, troubleshooting launches: the AMI's architecture must be the type's."""
    message = refuses("InvalidParameterValue", aws.launch, InstanceType="c7g.large")
    assert "does not match the architecture 'x86_64' of the specified AMI" in message


def test_a_key_pair_that_is_not_there_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidKeyPair.NotFound."""
    refuses("InvalidKeyPair.NotFound", aws.launch, KeyName="nobody")


def test_the_public_key_user_data_and_hostname_reach_the_machine(aws: Aws) -> None:
    aws.ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    instance = aws.running(KeyName="mine", UserData="#!/bin/sh\ntrue\n")
    spec = aws.machine(instance).spec
    assert spec.public_key is not None
    assert spec.public_key.startswith("ssh-ed25519 ")
    assert spec.user_data == b"#!/bin/sh\ntrue\n"
    assert spec.hostname.startswith("ip-")


def test_metadata_options_are_kept(aws: Aws) -> None:
    options = {"HttpTokens": "optional", "HttpPutResponseHopLimit": 2}
    kept = aws.instance(aws.launch(MetadataOptions=options))["MetadataOptions"]
    assert (kept["HttpTokens"], kept["HttpPutResponseHopLimit"]) == ("optional", 2)


def test_an_image_that_wants_imdsv2_makes_tokens_required(aws: Aws) -> None:
    """EC2 user guide, "Configure the AMI": ImdsSupport v2.0 sets HttpTokens to required."""
    assert aws.instance(aws.launch())["MetadataOptions"]["HttpTokens"] == "required"


def test_a_machine_that_cannot_boot_is_terminated_with_the_reason(start: Start) -> None:
    """DescribeInstances, StateReason: Server.InternalError for a failure at launch."""
    aws = start("boot:1=no memory left")
    instance = aws.launch()
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"] == {
        "Code": "Server.InternalError",
        "Message": "Server.InternalError: no memory left",
    }


def test_a_forwarded_ssh_port_is_in_a_tag(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: a machine without an address of its own is reached by a forwarded port."""
    monkeypatch.setattr(NoMachine, "ssh_port", 20_022)
    tags = aws.instance(aws.running())["Tags"]
    assert {"Key": "amibuild:ssh-port", "Value": "20022"} in tags


def test_a_dry_run_launches_nothing(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: DryRunOperation."""
    refuses("DryRunOperation", aws.launch, DryRun=True)
    assert aws.ec2.describe_instances()["Reservations"] == []
