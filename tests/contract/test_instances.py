"""An instance's states, from pending to terminated, and what each of them allows.

Source, where a test names none: EC2 user guide, "Instance lifecycle", and the API reference's
error codes.
"""

from __future__ import annotations

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start

LIFECYCLE = "EC2 user guide, Instance lifecycle"
ERROR_CODES = "EC2 API reference, Error codes"
NOBODY = "i-0123456789abcdef0"


@answers(
    "RunInstances",
    "the instance does not run yet",
    "pending",
    source=LIFECYCLE,
)
def test_it_is_pending_until_its_machine_runs(start: Start) -> None:
    aws = start(latency="run=1.5")
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


@answers(
    "StopInstances",
    "the instance runs",
    "stopping, then stopped; StateReason Client.UserInitiatedShutdown",
    source=LIFECYCLE,
)
def test_stopping_shuts_down_and_takes_its_time(start: Start) -> None:
    aws = start(latency="stop=1.5")
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


@answers(
    "RebootInstances",
    "the instance runs",
    "it stays running, on the same disk",
    source=LIFECYCLE,
)
def test_a_reboot_gives_a_new_machine_on_the_same_disk(aws: Aws) -> None:
    instance = aws.running()
    before = aws.machine(instance)
    aws.ec2.reboot_instances(InstanceIds=[instance])
    aws.until(lambda: str(aws.machine(instance) is before), "False")
    aws.until(lambda: aws.ping(instance), "Online")
    assert aws.state(instance) == "running"
    assert aws.machine(instance).spec.disk == before.spec.disk


@answers(
    "StopInstances",
    "the instance is pending",
    "IncorrectInstanceState",
    source=ERROR_CODES,
)
def test_a_pending_instance_cannot_be_stopped(start: Start, refuses: Refuses) -> None:
    """Error codes: IncorrectInstanceState."""
    aws = start(latency="run=60")
    instance = aws.launch()
    message = refuses("IncorrectInstanceState", aws.ec2.stop_instances, InstanceIds=[instance])
    assert message == (f"The instance '{instance}' is not in a state from which it can be stopped.")


@answers(
    "StopInstances",
    "the instance is stopped",
    "success, nothing changes",
    source="EC2 API reference, StopInstances",
)
def test_stopping_a_stopped_instance_changes_nothing(aws: Aws) -> None:
    instance = aws.stopped()
    (change,) = aws.ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"]
    assert change["CurrentState"]["Name"] == "stopped"


@answers(
    "StartInstances",
    "the instance is terminated",
    "IncorrectInstanceState",
    source=ERROR_CODES,
)
def test_a_terminated_instance_cannot_be_started(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    refuses("IncorrectInstanceState", aws.ec2.start_instances, InstanceIds=[instance])


@answers(
    "RebootInstances, StartInstances, StopInstances",
    "one of several is in no state for it",
    "IncorrectInstanceState, and none is changed",
    source=ERROR_CODES,
)
def test_one_in_the_wrong_state_leaves_the_others_alone(aws: Aws, refuses: Refuses) -> None:
    running, off = aws.running(), aws.stopped()
    gone = aws.running()
    aws.ec2.terminate_instances(InstanceIds=[gone])
    aws.until_state(gone, "terminated")
    wrong = "IncorrectInstanceState"
    refuses(wrong, aws.ec2.reboot_instances, InstanceIds=[running, off])
    refuses(wrong, aws.ec2.stop_instances, InstanceIds=[running, gone])
    refuses(wrong, aws.ec2.start_instances, InstanceIds=[off, gone])
    assert [aws.state(i) for i in (running, off)] == ["running", "stopped"]


@answers(
    "DescribeInstances",
    "the machine shut itself down",
    "stopped, StateReason Client.InstanceInitiatedShutdown",
    source="EC2 API reference, StateReason",
)
def test_one_that_powers_itself_off_is_stopped(aws: Aws) -> None:
    """StateReason: Client.InstanceInitiatedShutdown."""
    instance = aws.running()
    aws.machine(instance).power_off()
    aws.until_state(instance, "stopped")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


@answers(
    "RunInstances",
    "InstanceInitiatedShutdownBehavior terminate, and the machine shuts itself down",
    "terminated",
    source="EC2 API reference, RunInstances: InstanceInitiatedShutdownBehavior",
)
def test_one_that_powers_itself_off_is_terminated_where_that_was_asked(aws: Aws) -> None:
    """RunInstances, InstanceInitiatedShutdownBehavior."""
    instance = aws.running(InstanceInitiatedShutdownBehavior="terminate")
    aws.machine(instance).power_off()
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


@answers(
    "TerminateInstances",
    "volume and interface have DeleteOnTermination",
    "shutting-down, then terminated; both are gone",
    source=LIFECYCLE,
)
def test_terminating_takes_volume_and_interface_with_it(start: Start) -> None:
    aws = start(latency="terminate=1.5")
    instance = aws.running()
    folder = aws.machine(instance).spec.disk.parent
    (change,) = aws.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "shutting-down"
    assert aws.state(instance) == "shutting-down"
    aws.until_state(instance, "terminated")
    assert aws.ec2.describe_volumes()["Volumes"] == []
    assert aws.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert not folder.exists()


@answers(
    "TerminateInstances",
    "the instance is terminated",
    "success",
    source="EC2 API reference, TerminateInstances: idempotent",
)
def test_terminating_twice_is_no_error(aws: Aws) -> None:
    """TerminateInstances is idempotent (API reference)."""
    instance = aws.running()
    for _ in range(2):
        aws.ec2.terminate_instances(InstanceIds=[instance])
        aws.until_state(instance, "terminated")


@answers(
    "TerminateInstances",
    "the instance is pending",
    "terminated, StateReason Client.UserInitiatedShutdown",
    source=LIFECYCLE,
)
def test_a_pending_instance_can_be_terminated(start: Start) -> None:
    aws = start(latency="run=1.3")
    instance = aws.launch()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    assert aws.instance(instance)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


@answers(
    "DescribeInstances, StopInstances, StartInstances, TerminateInstances",
    "the instance does not exist; its id is none",
    "InvalidInstanceID.NotFound; InvalidInstanceID.Malformed",
    source=ERROR_CODES,
)
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


@answers(
    "TerminateInstances",
    "one of several ids does not exist",
    "the request fails, none is terminated",
    source="EC2 API reference, TerminateInstances",
)
def test_one_unknown_id_among_others_stops_nothing(aws: Aws, refuses: Refuses) -> None:
    """TerminateInstances: "If you specify … invalid IDs, the request fails" as a whole."""
    instance = aws.running()
    refuses(
        "InvalidInstanceID.NotFound", aws.ec2.terminate_instances, InstanceIds=[instance, NOBODY]
    )
    assert aws.state(instance) == "running"


@answers(
    "GetConsoleOutput",
    "the instance runs",
    "its console, base64",
    source="EC2 API reference, GetConsoleOutput",
)
def test_the_console_output_is_the_machines(aws: Aws) -> None:
    """GetConsoleOutput: base64 on the wire, which boto3 decodes."""
    instance = aws.running()
    output = aws.ec2.get_console_output(InstanceId=instance)["Output"]
    assert output == f"no machine behind {instance}\n"


def test_no_machine_outlives_the_endpoint(aws: Aws) -> None:
    machine = aws.machine(aws.running())
    aws.service.close()
    assert machine.exited()
    assert not machine.spec.disk.exists()
