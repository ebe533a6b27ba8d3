"""RunInstances: what it refuses, and what it does with what it takes."""

from __future__ import annotations

from typing import Any

import pytest

from amibuild.local.machines.none import NoMachine
from amibuild.local.overlay import launching
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start

ERROR_CODES = "EC2 API reference, Error codes"
# EC2 user guide, "Run commands at launch": 16 KB in raw form, before base64.
LIMIT = 16_384


@answers(
    "RunInstances",
    "the image does not exist",
    "InvalidAMIID.NotFound",
    source=ERROR_CODES,
)
def test_an_image_that_is_not_there_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIID.NotFound."""
    missing = "ami-0123456789abcdef0"
    message = refuses("InvalidAMIID.NotFound", aws.launch, ImageId=missing)
    assert message == f"The image id '[{missing}]' does not exist"


@answers(
    "RunInstances",
    "the image id is none",
    "InvalidAMIID.Malformed",
    source=ERROR_CODES,
)
def test_an_id_that_is_none_is_malformed(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIID.Malformed."""
    message = refuses("InvalidAMIID.Malformed", aws.launch, ImageId="ami-debian")
    assert message == 'Invalid id: "ami-debian" (expecting "ami-...")'


@answers(
    "RunInstances",
    "the image is pending",
    "InvalidAMIID.Unavailable",
    source=ERROR_CODES,
)
def test_a_pending_image_cannot_be_launched(start: Start, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIID.Unavailable."""
    aws = start(latency="image=60")
    image = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=image)


@answers(
    "RunInstances",
    "ImageId is resolve:ssm:NAME",
    "the image that the parameter holds",
    source="EC2 API reference, RunInstances: ImageId",
)
def test_a_parameter_can_name_the_image(aws: Aws) -> None:
    """RunInstances, ImageId: `resolve:ssm:parameter-name`; the instance has the image's id."""
    name = "resolve:ssm:/aws/service/debian/release/13/latest/amd64"
    assert aws.instance(aws.launch(ImageId=name))["ImageId"] == aws.base


def test_user_data_may_have_16384_bytes(aws: Aws) -> None:
    instance = aws.launch(UserData="x" * LIMIT)
    kept = aws.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    assert len(kept["UserData"]["Value"]) == 21_848  # base64 of 16,384 bytes


@answers(
    "RunInstances",
    "user data over 16,384 bytes before base64",
    "InvalidParameterValue: User data is limited to 16384 bytes",
    source="EC2 user guide, Run commands at launch: 16 KB in raw form",
)
def test_user_data_over_16384_bytes_is_refused(aws: Aws, refuses: Refuses) -> None:
    message = refuses("InvalidParameterValue", aws.launch, UserData="x" * (LIMIT + 1))
    assert message == "User data is limited to 16384 bytes"


@answers(
    "RunInstances",
    "the root volume is smaller than its snapshot",
    "InvalidBlockDeviceMapping",
    source=ERROR_CODES,
)
def test_a_volume_smaller_than_its_snapshot_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidBlockDeviceMapping."""
    small = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}]
    message = refuses("InvalidBlockDeviceMapping", aws.launch, BlockDeviceMappings=small)
    assert "is smaller than snapshot" in message


@answers(
    "RunInstances",
    "a gp3 volume without IOPS and throughput",
    "3,000 IOPS and 125 MiB/s",
    source="EBS user guide, General Purpose SSD volumes",
)
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


@answers(
    "RunInstances",
    "a volume without a size",
    "the size of its snapshot",
    source="EC2 API reference, EbsBlockDevice: VolumeSize",
)
def test_without_a_size_the_volume_has_the_snapshots(aws: Aws) -> None:
    """RunInstances, Ebs.VolumeSize: "the default is the snapshot size"."""
    kind = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "gp3"}}]
    instance = aws.launch(BlockDeviceMappings=kind)
    volumes = aws.ec2.describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance]}]
    )["Volumes"]
    assert [v["Size"] for v in volumes] == [2]


@answers(
    "RunInstances",
    "the instance type does not exist",
    "InvalidParameterValue",
    source="reported by clients (hashicorp/packer-plugin-amazon issues)",
)
def test_an_unknown_instance_type_is_refused(aws: Aws, refuses: Refuses) -> None:
    """Measured on EC2 by others: InvalidParameterValue (hashicorp/packer-plugin-amazon issues)."""
    message = refuses("InvalidParameterValue", aws.launch, InstanceType="c99.large")
    assert message == "Invalid value 'c99.large' for InstanceType."


@answers(
    "RunInstances",
    "the type's architecture is not the image's",
    "InvalidParameterValue",
    source="EC2 user guide, Troubleshoot instance launch issues",
)
def test_a_type_of_another_architecture_is_refused(aws: Aws, refuses: Refuses) -> None:
    """EC2 user guide, troubleshooting launches: the AMI's architecture must be the type's."""
    message = refuses("InvalidParameterValue", aws.launch, InstanceType="c7g.large")
    assert "does not match the architecture 'x86_64' of the specified AMI" in message


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


@answers(
    "RunInstances",
    "the image has ImdsSupport v2.0 and the request says nothing",
    "HttpTokens required, hop limit 2",
    source="EC2 user guide, Configure IMDS options for the AMI",
)
def test_an_image_that_wants_imdsv2_makes_tokens_required(aws: Aws) -> None:
    """EC2 user guide, "Configure the AMI": ImdsSupport v2.0 sets HttpTokens to required."""
    kept = aws.instance(aws.launch())["MetadataOptions"]
    assert (kept["HttpTokens"], kept["HttpPutResponseHopLimit"]) == ("required", 2)


def test_a_forwarded_ssh_port_is_in_a_tag(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: a machine without an address of its own is reached by a forwarded port."""
    monkeypatch.setattr(NoMachine, "ssh_port", 20_022)
    tags = aws.instance(aws.running())["Tags"]
    assert {"Key": "amibuild:ssh-port", "Value": "20022"} in tags


@answers(
    "RunInstances",
    "DryRun",
    "DryRunOperation, and no instance",
    source=ERROR_CODES,
)
def test_a_dry_run_launches_nothing(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: DryRunOperation."""
    refuses("DryRunOperation", aws.launch, DryRun=True)
    assert aws.ec2.describe_instances()["Reservations"] == []


@answers(
    "RunInstances",
    "MaxCount 3",
    "three instances in one reservation, AmiLaunchIndex 0 to 2",
    source="EC2 API reference, RunInstances: MaxCount; Instance: AmiLaunchIndex",
)
def test_several_instances_come_from_one_launch(aws: Aws) -> None:
    aws.iam.create_instance_profile(InstanceProfileName="game")
    made = aws.ec2.run_instances(
        ImageId=aws.base,
        InstanceType="c7i.large",
        MinCount=1,
        MaxCount=3,
        UserData="hello",
        IamInstanceProfile={"Name": "game"},
    )
    ids = [i["InstanceId"] for i in made["Instances"]]
    assert len(set(ids)) == 3
    for instance in ids:
        aws.until_state(instance, "running")
        assert aws.machine(instance).spec.user_data == b"hello"
    seen = [aws.instance(instance) for instance in ids]
    assert [i["AmiLaunchIndex"] for i in seen] == [0, 1, 2]
    assert len({i["PrivateIpAddress"] for i in seen}) == 3
    assert all(i["IamInstanceProfile"]["Arn"].endswith("/game") for i in seen)


@pytest.mark.parametrize(("least", "most"), [(0, 1), (1, 0), (2, 1)])
@answers(
    "RunInstances",
    "MinCount or MaxCount is zero, or MaxCount is the smaller",
    "InvalidParameterValue",
    source="EC2 API reference, RunInstances: MinCount; jenkinsci/ec2-plugin #252",
)
def test_a_launch_is_of_one_or_more(aws: Aws, refuses: Refuses, least: int, most: int) -> None:
    refuses("InvalidParameterValue", aws.launch, MinCount=least, MaxCount=most)


OVER_THE_LIMIT = "convox/rack #2539"


@answers(
    "RunInstances",
    "MinCount is more than the limit on running instances leaves",
    "InstanceLimitExceeded, and no instance",
    source=f"{ERROR_CODES}; its message: {OVER_THE_LIMIT}",
)
def test_a_launch_over_the_limit_is_refused_at_once(aws: Aws, refuses: Refuses) -> None:
    """The command line's `--count 100000` asks for as many at least, and at most."""
    many = {"MinCount": 100_000, "MaxCount": 100_000}
    refuses("DryRunOperation", aws.launch, **many, DryRun=True)
    message = refuses("InstanceLimitExceeded", aws.launch, **many)
    assert message == (
        "You have requested more instances (100000) than your current instance limit of "
        f"{launching.INSTANCE_LIMIT} allows for the specified instance type."
    )
    assert aws.ec2.describe_instances()["Reservations"] == []


@answers(
    "RunInstances",
    "MaxCount is more than the limit leaves, and MinCount is not",
    "as many instances as the limit leaves",
    source="EC2 API reference, RunInstances: MaxCount",
)
def test_a_launch_makes_as_many_as_it_may_up_to_the_most(
    aws: Aws, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "INSTANCE_LIMIT", 4)
    aws.launch()
    asked: Any = {"ImageId": aws.base, "InstanceType": "c7i.large", "MinCount": 2}
    made = aws.ec2.run_instances(**asked, MaxCount=100_000)["Instances"]
    assert [i["AmiLaunchIndex"] for i in made] == [0, 1, 2]
    message = refuses("InstanceLimitExceeded", aws.launch, MinCount=2, MaxCount=3)
    assert "more instances (6) than your current instance limit of 4 allows" in message


@answers(
    "RunInstances, StartInstances",
    "the limit is reached; an instance is stopped or terminated",
    "InstanceLimitExceeded; a stopped or terminated one does not count",
    source=f"{ERROR_CODES}; EC2 user guide, On-Demand Instance quotas: running instances",
)
def test_what_does_not_run_leaves_room_under_the_limit(
    aws: Aws, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "INSTANCE_LIMIT", 1)
    stopped = aws.stopped()
    second = aws.running()
    start = aws.ec2.start_instances
    refuses("InstanceLimitExceeded", start, InstanceIds=[stopped])
    assert aws.state(stopped) == "stopped"
    start(InstanceIds=[second])  # it runs already
    aws.ec2.terminate_instances(InstanceIds=[second])
    aws.until_state(second, "terminated")
    refuses("InstanceLimitExceeded", aws.launch, MinCount=2, MaxCount=2)
    start(InstanceIds=[stopped])
    aws.until_state(stopped, "running")


def test_every_region_is_this_host_and_has_one_limit(
    aws: Aws, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "INSTANCE_LIMIT", 1)
    aws.launch()
    elsewhere = Aws(aws.service, aws.session, region="eu-west-1")
    refuses("InstanceLimitExceeded", elsewhere.launch)


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("InvalidParameterValue", {"InstanceInitiatedShutdownBehavior": "explode"}),
        ("InvalidParameterValue", {"Placement": {"AvailabilityZone": "us-east-1z"}}),
        ("InvalidParameterValue", {"IamInstanceProfile": {"Name": "nobody"}}),
        ("InvalidSubnetID.NotFound", {"SubnetId": "subnet-0123456789abcdef0"}),
        (
            "InvalidParameterCombination",
            {
                "NetworkInterfaces": [{"DeviceIndex": 0}],
                "SecurityGroupIds": ["sg-0123456789abcdef0"],
            },
        ),
        (
            "InvalidParameterCombination",
            {"NetworkInterfaces": [{"DeviceIndex": 0}], "SubnetId": "subnet-0123456789abcdef0"},
        ),
    ],
    ids=["behaviour", "zone", "profile", "subnet", "groups and interface", "subnet and interface"],
)
@answers(
    "RunInstances",
    "a shutdown behaviour, zone or instance profile that does not exist; a subnet that does not; "
    "network interfaces together with groups or a subnet",
    "InvalidParameterValue; InvalidSubnetID.NotFound; InvalidParameterCombination",
    source=ERROR_CODES,
)
def test_what_a_launch_names_must_be_there(
    aws: Aws, refuses: Refuses, code: str, asked: dict[str, Any]
) -> None:
    refuses(code, aws.launch, **asked)
    assert aws.ec2.describe_instances()["Reservations"] == []


@answers(
    "RunInstances",
    "an empty zone, instance profile, subnet or user-data",
    "launches it as if they had not been named",
    source="Packer 1.6.6, builder/amazon/common/step_run_source_instance.go: sends all",
)
def test_what_is_empty_is_not_named(aws: Aws) -> None:
    empty = aws.launch(
        Placement={"AvailabilityZone": ""},
        IamInstanceProfile={"Name": ""},
        SubnetId="",
        UserData="",
    )
    assert aws.instance(empty)["Placement"]["AvailabilityZone"].startswith("us-east-1")
    assert "IamInstanceProfile" not in aws.instance(empty)


@pytest.mark.parametrize(
    "asked",
    [
        {"CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 1}},
        {"HibernationOptions": {"Configured": True}},
        {"EnclaveOptions": {"Enabled": True}},
        {"Placement": {"Tenancy": "dedicated"}},
        {"PrivateIpAddress": "172.31.0.7"},
        {"NetworkInterfaces": [{"DeviceIndex": 0}, {"DeviceIndex": 1}]},
    ],
    ids=lambda asked: next(iter(asked)),
)
@answers(
    "RunInstances",
    "CPU options, hibernation, enclaves, tenancy, an address of one's own, two interfaces",
    "launches it",
    source="EC2 API reference, RunInstances",
    ours="UnsupportedOperation, with the parameter's name",
)
def test_what_no_machine_here_can_be_is_refused_by_name(
    aws: Aws, refuses: Refuses, asked: dict[str, Any]
) -> None:
    message = refuses("UnsupportedOperation", aws.launch, **asked)
    assert next(iter(asked)) in message or "interfaces" in message


def test_what_terraform_says_by_habit_is_no_wish(aws: Aws) -> None:
    aws.launch(
        HibernationOptions={"Configured": False},
        EnclaveOptions={"Enabled": False},
        Placement={"Tenancy": "default"},
        Monitoring={"Enabled": False},
        EbsOptimized=False,
        CreditSpecification={"CpuCredits": "standard"},
        MaintenanceOptions={"AutoRecovery": "default"},
        PrivateDnsNameOptions={"HostnameType": "ip-name"},
    )
