"""Failures on order: calls, dead states, capacity, what is not seen yet, commands that go wrong.

What is ordered stands in amibuild/local/faults.py; here is what a client then gets.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from amibuild.errors import UsageError
from amibuild.local.faults import Fault
from amibuild.local.machines.script import read_script
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.test_commands import ended, invocation, send
from tests.contract.test_parameters import CHANNEL, version

NO_ROOM = "Server.InsufficientInstanceCapacity"
CONSISTENCY = "EC2 developer guide, Eventual consistency"


def subnet_of(aws: Aws, zone: str) -> str:
    found = aws.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])
    return found["Subnets"][0]["SubnetId"]


@answers(
    "RunInstances",
    "no capacity for that type in that zone",
    "InsufficientInstanceCapacity, status 500",
    source="EC2 API reference, Error codes, server errors",
    ours="on order: --fault 'RunInstances[c7i.large,us-east-1a]:*=InsufficientInstanceCapacity'",
)
def test_capacity_is_short_by_type_and_zone(start: Start, refuses: Refuses) -> None:
    aws = start("RunInstances[c7i.large,us-east-1a]:*=InsufficientInstanceCapacity")
    here = {"Placement": {"AvailabilityZone": "us-east-1a"}}
    code = "InsufficientInstanceCapacity"
    refuses(code, aws.launch, **here)
    refuses(code, aws.launch, SubnetId=subnet_of(aws, "us-east-1a"))
    interface = [{"DeviceIndex": 0, "SubnetId": subnet_of(aws, "us-east-1a")}]
    refuses(code, aws.launch, NetworkInterfaces=interface)
    aws.launch(InstanceType="c7i.xlarge", **here)
    aws.launch(Placement={"AvailabilityZone": "us-east-1b"})


def test_a_launch_template_is_looked_into(start: Start, refuses: Refuses) -> None:
    aws = start("RunInstances[c7i.large]:*=InsufficientInstanceCapacity")
    data = {"InstanceType": "c7i.large", "ImageId": aws.base}
    aws.ec2.create_launch_template(LaunchTemplateName="game", LaunchTemplateData=data)  # type: ignore[arg-type]
    asked = {"LaunchTemplate": {"LaunchTemplateName": "game"}, "MinCount": 1, "MaxCount": 1}
    refuses("InsufficientInstanceCapacity", aws.ec2.run_instances, **asked)


def test_only_calls_with_the_words_are_counted(start: Start, refuses: Refuses) -> None:
    aws = start("GetParameter[/b]:2=InternalServerError")
    for name in ("/a", "/b"):
        aws.ssm.put_parameter(Name=name, Value="x", Type="String")
    for name in ("/a", "/a", "/b", "/a"):
        aws.ssm.get_parameter(Name=name)
    refuses("InternalServerError", aws.ssm.get_parameter, Name="/b")


def test_a_range_of_calls_fails(start: Start, refuses: Refuses) -> None:
    aws = start("DescribeImages:2-3=RequestLimitExceeded")
    aws.ec2.describe_images()
    for _ in range(2):
        refuses("RequestLimitExceeded", aws.ec2.describe_images)
    aws.ec2.describe_images()


def test_a_call_may_never_be_answered(start: Start) -> None:
    """The client gives up by its own time-out; what was asked for is done."""
    aws = start("RunInstances:1=NoAnswer:after")
    impatient = aws.session.client(
        "ec2",
        endpoint_url=aws.service.url,
        config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}),
    )
    asked: Any = {"ImageId": aws.base, "InstanceType": "c7i.large", "MinCount": 1, "MaxCount": 1}
    with pytest.raises(ReadTimeoutError):
        impatient.run_instances(**asked, ClientToken="a-token")
    reservations = aws.ec2.describe_instances()["Reservations"]
    assert [i["InstanceId"] for r in reservations for i in r["Instances"]] == [
        aws.launch(ClientToken="a-token")
    ]


@answers(
    "DescribeInstances",
    "right after RunInstances",
    "may answer InvalidInstanceID.NotFound, or leave it out of a list",
    source=CONSISTENCY,
    ours="on order: --fault visible:instance=N, N being reads",
)
def test_a_new_instance_is_not_seen_at_first(start: Start, refuses: Refuses) -> None:
    aws = start("visible:instance=3")
    old = aws.launch()
    for _ in range(3):
        refuses("InvalidInstanceID.NotFound", aws.instance, instance=old)
    new = aws.launch()
    assert aws.instance(old)["InstanceId"] == old  # which is no read of the new one
    reservations = aws.ec2.describe_instances()["Reservations"]
    assert [i["InstanceId"] for r in reservations for i in r["Instances"]] == [old]
    state = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = aws.ec2.describe_instances(Filters=state)["Reservations"]  # type: ignore[arg-type]
    assert [i["InstanceId"] for r in found for i in r["Instances"]] == [old]
    refuses("InvalidInstanceID.NotFound", aws.instance, instance=new)
    assert aws.instance(new)["InstanceId"] == new


def test_what_was_made_before_it_was_ordered_is_seen(start: Start) -> None:
    aws = start("visible:instance=3")
    hidden = aws.launch()
    aws.service.scripted.faults.order(())
    between = aws.launch()
    aws.service.scripted.faults.order([Fault.parse("visible:instance=3")])
    for instance in (hidden, between):
        assert aws.instance(instance)["InstanceId"] == instance


@answers(
    "DescribeImages, DescribeSnapshots, DescribeVolumes, DescribeSecurityGroups, DescribeKeyPairs",
    "right after the resource was made",
    "may answer NotFound",
    source=CONSISTENCY,
    ours="on order: --fault visible:KIND=N, N being reads",
)
def test_so_it_is_with_every_other_kind(start: Start, refuses: Refuses) -> None:
    kinds = ("image", "snapshot", "volume", "security-group", "key-pair")
    aws = start(*(f"visible:{kind}=1" for kind in kinds))
    assert aws.ec2.describe_images(ImageIds=[aws.base])["Images"]
    image = aws.ec2.create_image(InstanceId=aws.stopped(), Name="new-image")["ImageId"]
    refuses("InvalidAMIID.NotFound", aws.ec2.describe_images, ImageIds=[image])
    found = aws.ec2.describe_images(ImageIds=[image])["Images"][0]
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1
    assert found["Name"] == "new-image"
    aws.ec2.describe_volumes()
    volume = aws.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    refuses("InvalidVolume.NotFound", aws.ec2.describe_volumes, VolumeIds=[volume])
    aws.ec2.describe_volumes(VolumeIds=[volume])
    group = aws.ec2.create_security_group(GroupName="a", Description="b")["GroupId"]
    refuses("InvalidGroup.NotFound", aws.ec2.describe_security_groups, GroupIds=[group])
    aws.ec2.describe_security_groups(GroupIds=[group])
    aws.ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    refuses("InvalidKeyPair.NotFound", aws.ec2.describe_key_pairs, KeyNames=["mine"])
    aws.ec2.describe_key_pairs(KeyNames=["mine"])


def test_an_overwritten_parameter_is_read_with_its_older_value(start: Start) -> None:
    aws = start("visible:parameter=2")
    aws.ssm.put_parameter(Name=CHANNEL, Value="old", Type="String")
    assert [version(aws) for _ in range(3)] == ["none", "none", "1"]
    aws.ssm.put_parameter(Name=CHANNEL, Value="new", Overwrite=True)
    seen = [aws.ssm.get_parameter(Name=CHANNEL)["Parameter"]["Value"] for _ in range(3)]
    assert seen == ["old", "old", "new"]


@answers(
    "GetCommandInvocation",
    "right after SendCommand",
    "may answer InvocationDoesNotExist",
    source="SSM API reference, GetCommandInvocation",
    ours="on order: --fault visible:command=N, N being reads",
)
def test_a_new_command_is_not_seen_at_first(start: Start, refuses: Refuses) -> None:
    aws = start("visible:command=2")
    instance = aws.running()
    command = send(aws, instance)
    for _ in range(2):
        asked = {"CommandId": command, "InstanceId": instance}
        refuses("InvocationDoesNotExist", aws.ssm.get_command_invocation, **asked)
    assert ended(aws, command, instance)["Status"] == "Success"


def test_a_launch_may_stay_pending_for_ever(start: Start) -> None:
    aws = start("boot:1=never")
    stuck, other = aws.launch(), aws.running()
    assert (aws.state(stuck), aws.state(other)) == ("pending", "running")
    aws.ec2.terminate_instances(InstanceIds=[stuck])
    aws.until_state(stuck, "terminated")
    assert aws.instance(stuck)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


@answers(
    "DescribeInstances",
    "the instance could not be started",
    "terminated, StateReason Server.InternalError, or Server.InsufficientInstanceCapacity",
    source="EC2 API reference, StateReason",
    ours="on order: --fault boot:N=REASON",
)
@pytest.mark.parametrize(
    ("reason", "code", "message"),
    [
        ("no memory left", "Server.InternalError", "Server.InternalError: no memory left"),
        (f"{NO_ROOM}: none left", NO_ROOM, f"{NO_ROOM}: none left"),
        (NO_ROOM, NO_ROOM, f"{NO_ROOM}: ordered"),
        ("Server: none", "Server.InternalError", "Server.InternalError: Server: none"),
    ],
)
def test_a_machine_that_cannot_boot_is_terminated_with_the_reason(
    start: Start, reason: str, code: str, message: str
) -> None:
    aws = start(f"boot:1={reason}")
    instance = aws.launch()
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"] == {"Code": code, "Message": message}


@answers(
    "DescribeImages",
    "the image could not be made",
    "failed, or invalid; pending for hours has been seen",
    source="EC2 API reference, Image: State",
    ours="on order: --fault capture:N=REASON, capture:N=invalid, capture:N=never",
)
def test_an_image_may_end_in_every_dead_state(start: Start, refuses: Refuses) -> None:
    aws = start("capture:1=disk on fire", "capture:2=invalid", "capture:3=never")
    instance = aws.stopped()
    images = [
        aws.ec2.create_image(InstanceId=instance, Name=f"image-{n}")["ImageId"] for n in range(3)
    ]
    aws.until(lambda: aws.image_state(images[0]), "failed")
    aws.until(lambda: aws.image_state(images[1]), "invalid")
    assert aws.image_state(images[2]) == "pending"
    for image in images:
        refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=image)


def script_file(folder: Path, *lines: dict[str, Any]) -> Any:
    file = folder / "script.json"
    file.write_text(json.dumps(lines))
    return read_script(file)


def test_a_command_may_hang_until_it_is_cancelled(start: Start, tmp_path: Path) -> None:
    aws = start(script=script_file(tmp_path, {"match": "apt-get", "hang": True}))
    instance = aws.running()
    command = send(aws, instance, "apt-get update")
    aws.until(lambda: invocation(aws, command, instance)["Status"], "InProgress")
    aws.ssm.cancel_command(CommandId=command)
    assert ended(aws, command, instance)["Status"] == "Cancelled"


def test_a_gigabyte_of_output_is_cut_like_any_other(start: Start, tmp_path: Path) -> None:
    line = {"stdout": "0123456789", "stdout_bytes": 1_000_000_000, "exit_code": 1}
    aws = start(script=script_file(tmp_path, line))
    instance = aws.running()
    done = ended(aws, send(aws, instance), instance)
    assert done["StandardOutputContent"] == "0123456789" * 2_400
    assert done["ResponseCode"] == 1


def test_bytes_that_are_no_text_reach_the_client_as_marks(start: Start, tmp_path: Path) -> None:
    """What SSM keeps is text."""
    line = {"stdout_base64": base64.b64encode(b"\xff\x00\x01ok\x1b[0m").decode()}
    aws = start(script=script_file(tmp_path, line))
    instance = aws.running()
    done = ended(aws, send(aws, instance), instance)
    assert done["StandardOutputContent"] == "\ufffd\x00\x01ok\x1b[0m"


def test_an_agent_may_go_away_under_a_command(start: Start, tmp_path: Path) -> None:
    """The machine has lost its connection until its agent answers again, after a boot."""
    aws = start(script=script_file(tmp_path, {"agent_gone": True, "times": 1}))
    instance = aws.running()
    done = ended(aws, send(aws, instance), instance)
    assert (done["Status"], done["StatusDetails"]) == ("Failed", "Undeliverable")
    aws.until(lambda: aws.ping(instance), "ConnectionLost")
    waiting = send(aws, instance)
    assert invocation(aws, waiting, instance)["Status"] == "Pending"
    aws.ec2.reboot_instances(InstanceIds=[instance])
    assert ended(aws, waiting, instance)["Status"] == "Success"


def test_an_agent_may_stop_answering_after_a_time(start: Start) -> None:
    aws = start("agent:1=0.3")
    instance = aws.running()
    command = send(aws, instance)

    def see() -> str:
        nonlocal command
        if invocation(aws, command, instance)["Status"] == "Success":
            command = send(aws, instance)
        return aws.ping(instance)

    aws.until(see, "ConnectionLost")
    assert invocation(aws, command, instance)["Status"] == "Pending"


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("CreateImag:1=InternalError", "did you mean CreateImage or"),
        ("bot:1=memory", "did you mean boot"),
        ("Frobnicate:1=InternalError", "one of boot, agent, capture, spot"),
    ],
)
def test_a_fault_that_can_never_hit_is_refused(start: Start, fault: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        start(fault)
    assert hint in (refused.value.hint or "")
