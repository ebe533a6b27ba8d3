"""An instance's states, from pending to terminated, and what each of them allows.

Source, where a test names none: EC2 user guide, "Instance lifecycle", and the API reference's
error codes.
"""

from __future__ import annotations

from tests.contract.conftest import Aws, Refuses, Start

NOBODY = "i-0123456789abcdef0"


def test_it_is_pending_until_its_machine_runs(start: Start) -> None:
    aws = start(latency="run=0.5")
    instance = aws.launch()
    assert aws.state(instance) == "pending"
    aws.until_state(instance, "running")


def test_its_addresses_are_the_machines(aws: Aws) -> None:
    instance = aws.running()
    address = aws.machine(instance).private_ip
    seen = aws.instance(instance)
    assert (seen["PrivateIpAddress"], seen["PublicIpAddress"]) == (address, address)


def test_without_a_public_address_it_has_none(aws: Aws) -> None:
    interface = [{"DeviceIndex": 0, "AssociatePublicIpAddress": False}]
    assert "PublicIpAddress" not in aws.instance(aws.running(NetworkInterfaces=interface))


def test_stopping_shuts_down_and_takes_its_time(start: Start) -> None:
    aws = start(latency="stop=0.5")
    instance = aws.running()
    (change,) = aws.ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == (
        "running",
        "stopping",
    )
    assert aws.state(instance) == "stopping"
    aws.until_state(instance, "stopped")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_a_forced_stop_does_not_wait(start: Start) -> None:
    aws = start(latency="stop=600")
    instance = aws.running()
    aws.ec2.stop_instances(InstanceIds=[instance], Force=True)
    aws.until_state(instance, "stopped")


def test_a_start_after_a_stop_has_the_same_disk(aws: Aws) -> None:
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(b"still here")
    (change,) = aws.ec2.start_instances(InstanceIds=[instance])["StartingInstances"]
    assert change["CurrentState"]["Name"] == "pending"
    aws.until_state(instance, "running")
    with aws.machine(instance).spec.disk.open("rb") as disk:
        assert disk.read(10) == b"still here"


def test_a_reboot_gives_a_new_machine_on_the_same_disk(aws: Aws) -> None:
    instance = aws.running()
    before = aws.machine(instance)
    aws.ec2.reboot_instances(InstanceIds=[instance])
    aws.until(lambda: str(aws.machine(instance) is before), "False")
    aws.until(lambda: aws.ping(instance), "Online")
    assert aws.state(instance) == "running"
    assert aws.machine(instance).spec.disk == before.spec.disk


def test_a_pending_instance_cannot_be_stopped(start: Start, refuses: Refuses) -> None:
    """Error codes: IncorrectInstanceState."""
    aws = start(latency="run=60")
    instance = aws.launch()
    message = refuses("IncorrectInstanceState", aws.ec2.stop_instances, InstanceIds=[instance])
    assert message == (f"The instance '{instance}' is not in a state from which it can be stopped.")


def test_stopping_a_stopped_instance_changes_nothing(aws: Aws) -> None:
    instance = aws.stopped()
    (change,) = aws.ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"]
    assert change["CurrentState"]["Name"] == "stopped"


def test_a_terminated_instance_cannot_be_started(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    refuses("IncorrectInstanceState", aws.ec2.start_instances, InstanceIds=[instance])


def test_one_that_powers_itself_off_is_stopped(aws: Aws) -> None:
    """StateReason: Client.InstanceInitiatedShutdown."""
    instance = aws.running()
    aws.machine(instance).power_off()
    aws.until_state(instance, "stopped")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_one_that_powers_itself_off_is_terminated_where_that_was_asked(aws: Aws) -> None:
    """RunInstances, InstanceInitiatedShutdownBehavior."""
    instance = aws.running(InstanceInitiatedShutdownBehavior="terminate")
    aws.machine(instance).power_off()
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_terminating_takes_volume_and_interface_with_it(start: Start) -> None:
    aws = start(latency="terminate=0.5")
    instance = aws.running()
    folder = aws.machine(instance).spec.disk.parent
    (change,) = aws.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "shutting-down"
    assert aws.state(instance) == "shutting-down"
    aws.until_state(instance, "terminated")
    assert aws.ec2.describe_volumes()["Volumes"] == []
    assert aws.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert not folder.exists()


def test_terminating_twice_is_no_error(aws: Aws) -> None:
    """TerminateInstances is idempotent (API reference)."""
    instance = aws.running()
    for _ in range(2):
        aws.ec2.terminate_instances(InstanceIds=[instance])
        aws.until_state(instance, "terminated")


def test_a_pending_instance_can_be_terminated(start: Start) -> None:
    aws = start(latency="run=0.3")
    instance = aws.launch()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_unknown_and_malformed_ids_have_errors_of_their_own(aws: Aws, refuses: Refuses) -> None:
    """Error codes: InvalidInstanceID.NotFound, InvalidInstanceID.Malformed."""
    calls = (
        aws.ec2.describe_instances,
        aws.ec2.stop_instances,
        aws.ec2.start_instances,
        aws.ec2.terminate_instances,
    )
    for call in calls:
        refuses("InvalidInstanceID.NotFound", call, InstanceIds=[NOBODY])
        refuses("InvalidInstanceID.Malformed", call, InstanceIds=["i-am-none"])


def test_one_unknown_id_among_others_stops_nothing(aws: Aws, refuses: Refuses) -> None:
    """TerminateInstances: "If you specify … invalid IDs, the request fails" as a whole."""
    instance = aws.running()
    refuses(
        "InvalidInstanceID.NotFound", aws.ec2.terminate_instances, InstanceIds=[instance, NOBODY]
    )
    assert aws.state(instance) == "running"


def test_an_instance_that_is_not_there_gets_no_tags(aws: Aws, refuses: Refuses) -> None:
    refuses(
        "InvalidInstanceID.NotFound",
        aws.ec2.create_tags,
        Resources=[NOBODY],
        Tags=[{"Key": "a", "Value": "b"}],
    )


def test_the_console_output_is_the_machines(aws: Aws) -> None:
    """GetConsoleOutput: base64 on the wire, which boto3 decodes."""
    instance = aws.running()
    output = aws.ec2.get_console_output(InstanceId=instance)["Output"]
    assert output == f"no machine behind {instance}\n"


def test_a_group_in_use_cannot_be_deleted(start: Start, refuses: Refuses) -> None:
    """DeleteSecurityGroup: DependencyViolation while an instance is in it."""
    aws = start(latency="terminate=0.5")
    group = aws.ec2.create_security_group(GroupName="mine", Description="mine")["GroupId"]
    instance = aws.running(NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [group]}])
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=group)
    aws.ec2.terminate_instances(InstanceIds=[instance])
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=group)
    aws.until_state(instance, "terminated")
    aws.ec2.delete_security_group(GroupId=group)


def test_a_group_that_another_names_cannot_be_deleted(aws: Aws, refuses: Refuses) -> None:
    """DeleteSecurityGroup: "or is referenced by another security group"."""
    named, naming = (
        aws.ec2.create_security_group(GroupName=n, Description=n)["GroupId"] for n in ("a", "b")
    )
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    aws.ec2.authorize_security_group_ingress(
        GroupId=naming,
        IpPermissions=[{**rule, "UserIdGroupPairs": [{"GroupId": named}]}],  # type: ignore[list-item]
    )
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=named)
    aws.ec2.delete_security_group(GroupId=naming)
    aws.ec2.delete_security_group(GroupId=named)


def test_the_default_group_cannot_be_deleted(aws: Aws, refuses: Refuses) -> None:
    """Error codes: CannotDelete."""
    groups = aws.ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    refuses("CannotDelete", aws.ec2.delete_security_group, GroupId=groups[0]["GroupId"])


def test_no_machine_outlives_the_endpoint(aws: Aws) -> None:
    machine = aws.machine(aws.running())
    aws.service.close()
    assert machine.exited()
    assert not machine.spec.disk.exists()
