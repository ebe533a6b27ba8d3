"""Client tokens: a request that is repeated does nothing again."""

from __future__ import annotations

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses

IDEMPOTENCY = "EC2 API reference, Ensuring idempotency"


@answers(
    "RunInstances",
    "a client token is used again with the same parameters",
    "the same instance, nothing else happens",
    source=IDEMPOTENCY,
)
def test_a_token_gives_the_same_instance_again(aws: Aws) -> None:
    first = aws.launch(ClientToken="a-token")
    assert aws.launch(ClientToken="a-token") == first
    reservations = aws.ec2.describe_instances()["Reservations"]
    assert [i["InstanceId"] for r in reservations for i in r["Instances"]] == [first]


@answers(
    "RunInstances",
    "a client token is used again after the instance was terminated",
    "the same instance, in the state that it has by now",
    source=f"{IDEMPOTENCY}: the result may contain updated information",
)
def test_a_repeated_launch_tells_the_state_of_now(aws: Aws) -> None:
    asked = {"ImageId": aws.base, "InstanceType": "c7i.large", "MinCount": 1, "MaxCount": 1}
    (made,) = aws.ec2.run_instances(**asked, ClientToken="a-token")["Instances"]  # type: ignore[arg-type]
    assert made["State"]["Name"] == "pending"
    aws.until_state(made["InstanceId"], "running")
    aws.ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    aws.until_state(made["InstanceId"], "terminated")
    (again,) = aws.ec2.run_instances(**asked, ClientToken="a-token")["Instances"]  # type: ignore[arg-type]
    assert (again["InstanceId"], again["State"]["Name"]) == (made["InstanceId"], "terminated")


@answers(
    "RunInstances",
    "a client token is used again with other parameters",
    "IdempotentParameterMismatch",
    source=f"{IDEMPOTENCY}; Error codes",
)
def test_a_token_with_other_parameters_is_refused(aws: Aws, refuses: Refuses) -> None:
    aws.launch(ClientToken="a-token")
    refuses(
        "IdempotentParameterMismatch",
        aws.launch,
        ClientToken="a-token",
        InstanceType="c7i.xlarge",
    )


@answers(
    "RunInstances",
    "a client token of more than 64 characters",
    "InvalidParameterValue",
    source=f"{IDEMPOTENCY}: up to 64 ASCII characters",
)
def test_a_token_that_is_too_long_is_refused(aws: Aws, refuses: Refuses) -> None:
    refuses("InvalidParameterValue", aws.launch, ClientToken="t" * 65)
    aws.launch(ClientToken="t" * 64)


def test_a_token_of_a_request_that_failed_is_not_used_up(aws: Aws, refuses: Refuses) -> None:
    refuses("InvalidKeyPair.NotFound", aws.launch, ClientToken="a-token", KeyName="mine")
    aws.ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    aws.launch(ClientToken="a-token", KeyName="mine")


def test_a_token_means_another_thing_in_another_region(aws: Aws) -> None:
    elsewhere = Aws(aws.service, aws.session, region="eu-west-1")
    assert elsewhere.launch(ClientToken="a-token") != aws.launch(ClientToken="a-token")


@answers(
    "CreateVolume",
    "a client token is used again",
    "the same volume; IdempotentParameterMismatch for other parameters",
    source=IDEMPOTENCY,
)
def test_a_token_gives_the_same_volume_again(aws: Aws, refuses: Refuses) -> None:
    asked = {"AvailabilityZone": "us-east-1a", "Size": 1, "ClientToken": "a-token"}
    first = aws.ec2.create_volume(**asked)["VolumeId"]  # type: ignore[arg-type]
    assert aws.ec2.create_volume(**asked)["VolumeId"] == first  # type: ignore[arg-type]
    refuses("IdempotentParameterMismatch", aws.ec2.create_volume, **{**asked, "Size": 2})


@answers(
    "CreateLaunchTemplate",
    "a client token is used again",
    "the same template; IdempotentParameterMismatch for other parameters",
    source=IDEMPOTENCY,
)
def test_a_token_gives_the_same_template_again(aws: Aws, refuses: Refuses) -> None:
    asked = {
        "LaunchTemplateName": "game",
        "LaunchTemplateData": {"InstanceType": "c7i.large"},
        "ClientToken": "a-token",
    }
    ids = [
        aws.ec2.create_launch_template(**asked)["LaunchTemplate"]["LaunchTemplateId"]  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert ids[0] == ids[1]
    refuses(
        "IdempotentParameterMismatch",
        aws.ec2.create_launch_template,
        **{**asked, "LaunchTemplateName": "other"},
    )


@answers(
    "CreateNetworkInterface",
    "a client token is used again",
    "the same interface",
    source=IDEMPOTENCY,
)
def test_a_token_gives_the_same_interface_again(aws: Aws) -> None:
    subnet = aws.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ids = [
        aws.ec2.create_network_interface(SubnetId=subnet, ClientToken="a-token")[
            "NetworkInterface"
        ]["NetworkInterfaceId"]
        for _ in range(2)
    ]
    assert ids[0] == ids[1]
