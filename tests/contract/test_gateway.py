"""The door in front of moto: S3 by URL, errors in AWS's words, failures on order, the log."""

from __future__ import annotations

import http.client
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from amibuild.local.gateway import read_call
from tests.contract.answers import answers
from tests.contract.conftest import KEY, Aws, Refuses, Start

DESCRIBE = "Action=DescribeInstances&Version=2016-11-15"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@answers(
    "any",
    "an action that EC2 does not have; one that SSM does not have",
    "InvalidAction; UnknownOperationException",
    source="EC2 API reference, Error codes; AWS JSON protocol",
)
def test_what_aws_does_not_have_is_no_action(aws: Aws) -> None:
    answer = signed(aws, "ec2", "Action=MakeCoffee&Version=2016-11-15", FORM)
    assert answer.status == 400
    assert b"<Code>InvalidAction</Code>" in answer.read()
    target = {"X-Amz-Target": "AmazonSSM.MakeCoffee", "Content-Type": "application/x-amz-json-1.1"}
    answer = signed(aws, "ssm", "{}", target)
    assert json.loads(answer.read())["__type"] == "UnknownOperationException"


@answers(
    "any",
    "a service that starts machines or changes images by itself (Auto Scaling, CloudFormation, …)",
    "does it",
    source="AWS service endpoints",
    ours="UnsupportedOperation, with operation and service",
)
def test_other_services_cannot_act_behind_our_back(aws: Aws) -> None:
    answer = signed(aws, "autoscaling", "Action=CreateAutoScalingGroup", FORM)
    body = answer.read()
    assert (answer.status, b"UnsupportedOperation" in body) == (400, True)
    assert b"CreateAutoScalingGroup of autoscaling" in body


def signed(
    aws: Aws, service: str, body: str, headers: dict[str, str], key_id: str = KEY.id
) -> http.client.HTTPResponse:
    """A request that says it is signed: the endpoint asks for a key that it knows, no more."""
    scope = f"{key_id}/20260101/us-east-1/{service}/aws4_request"
    mark = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
    connection = http.client.HTTPConnection("127.0.0.1", aws.service.port, timeout=10)
    connection.request("POST", "/", body, {**headers, "Authorization": mark})
    return connection.getresponse()


@answers(
    "GetObject",
    "a presigned URL, and no more",
    "the object",
    source="S3 user guide, Presigned URLs",
)
def test_a_presigned_url_is_all_that_is_needed(aws: Aws) -> None:
    """S3 user guide, presigned URLs. The URL names 127.0.0.1, which means the same inside."""
    aws.s3.create_bucket(Bucket="payloads")
    aws.s3.put_object(Bucket="payloads", Key="a/payload", Body=b"12345")
    asked = {"Bucket": "payloads", "Key": "a/payload"}
    url = aws.s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=60)
    assert urlparse(url).netloc == f"127.0.0.1:{aws.service.port}"
    with urlopen(url, timeout=10) as answer:
        assert answer.read() == b"12345"


def test_a_presigned_url_takes_a_log(aws: Aws) -> None:
    aws.s3.create_bucket(Bucket="logs")
    asked = {"Bucket": "logs", "Key": "log"}
    url = aws.s3.generate_presigned_url("put_object", Params=asked, ExpiresIn=60)
    with urlopen(Request(url, data=b"done", method="PUT"), timeout=10):
        pass
    assert aws.s3.get_object(Bucket="logs", Key="log")["Body"].read() == b"done"


@answers(
    "any",
    "the request is not signed",
    "MissingAuthenticationToken",
    source="EC2 API reference, Error codes",
)
def test_a_request_without_a_signature_is_refused(aws: Aws) -> None:
    """EC2 API reference: MissingAuthenticationToken. A web page can't sign."""
    connection = http.client.HTTPConnection("127.0.0.1", aws.service.port, timeout=10)
    connection.request("POST", "/", "Action=DescribeInstances&Version=2016-11-15", FORM)
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"MissingAuthenticationToken" in answer.read()
    connection.close()


@answers(
    "any",
    "the access key is not one that was given out",
    "AuthFailure of EC2, UnrecognizedClientException of SSM, InvalidAccessKeyId of S3",
    source="EC2 and S3 API references, Error codes; SSM API reference, Common errors",
)
@pytest.mark.parametrize(
    ("service", "headers", "status", "code"),
    [
        ("ec2", FORM, 401, b"AuthFailure"),
        (
            "sts",
            FORM,
            403,
            b"InvalidClientTokenId",
        ),
        ("ssm", {"X-Amz-Target": "AmazonSSM.SendCommand"}, 400, b"UnrecognizedClientException"),
        ("s3", {}, 403, b"InvalidAccessKeyId"),
    ],
)
def test_a_key_of_somebody_else_opens_nothing(
    aws: Aws, service: str, headers: dict[str, str], status: int, code: bytes
) -> None:
    """Another user of this host, or a web page whose name leads to 127.0.0.1."""
    answer = signed(aws, service, "Action=DescribeInstances", headers, "AKIAI44QH8DHBEXAMPLE")
    assert answer.status == status
    assert code in answer.read()


@answers(
    "any",
    "a number that is none; of SSM, a body that is no JSON object",
    "InvalidParameterValue; SerializationException",
    source="EC2 API reference, Error codes; AWS JSON protocol",
)
def test_what_cant_be_read_is_no_bug_of_the_endpoints(aws: Aws) -> None:
    body = f"Action=RunInstances&Version=2016-11-15&ImageId={aws.base}&MinCount=abc&MaxCount=1"
    answer = signed(aws, "ec2", body, FORM)
    assert b"<Code>InvalidParameterValue</Code>" in answer.read()
    for body in ("{", "[]", ""):
        answer = signed(aws, "ssm", body, {"X-Amz-Target": "AmazonSSM.GetParameter"})
        assert json.loads(answer.read())["__type"] == "SerializationException"


def test_a_presigned_url_with_a_key_of_somebody_else_opens_nothing(aws: Aws) -> None:
    scope = "AKIAI44QH8DHBEXAMPLE/20260101/us-east-1/ec2/aws4_request"
    connection = http.client.HTTPConnection("127.0.0.1", aws.service.port, timeout=10)
    body = "Action=RunInstances&Version=2016-11-15"
    connection.request("POST", f"/?X-Amz-Credential={scope}&X-Amz-Signature=0", body, FORM)
    assert connection.getresponse().status == 401
    connection.request("GET", "/a-bucket/a-key")
    assert connection.getresponse().status == 403
    connection.close()


def test_a_stranger_cannot_fill_the_endpoints_memory(aws: Aws) -> None:
    """A page may send a form of any size: what names the service is enough of it."""
    body = "Action=RunInstances&Version=2016-11-15&UserData=" + "A" * (1 << 20)
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": FORM["Content-Type"],
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body.encode()),
    }
    call = read_call(environ, lambda key_id: False)
    assert (call.service, call.operation) == ("ec2", "RunInstances")
    assert len(call.body) < 1 << 14
    assert read_call({**environ, "CONTENT_LENGTH": "many"}, lambda key_id: False).body == b""


@answers(
    "GetSessionToken, GetFederationToken",
    "any",
    "keys of their own",
    source="STS API reference",
    ours="UnsupportedOperation",
)
def test_nobody_is_given_the_key_of_all_examples(aws: Aws, refuses: Refuses) -> None:
    sts = aws.session.client("sts", endpoint_url=aws.service.url, region_name=aws.region)
    refuses("UnsupportedOperation", sts.get_session_token)
    refuses("UnsupportedOperation", sts.get_federation_token, Name="somebody")


def test_a_key_that_was_switched_off_opens_nothing(aws: Aws) -> None:
    aws.iam.create_user(UserName="visitor")
    key = aws.iam.create_access_key(UserName="visitor")["AccessKey"]
    assert signed(aws, "ec2", DESCRIBE, FORM, key["AccessKeyId"]).status == 200
    aws.iam.update_access_key(UserName="visitor", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert signed(aws, "ec2", DESCRIBE, FORM, key["AccessKeyId"]).status == 401


def test_moto_cannot_be_reset_from_outside(aws: Aws) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", aws.service.port, timeout=10)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 400
    connection.close()
    assert aws.image_state(aws.base) == "available"


@answers(
    "any",
    "too many requests",
    "RequestLimitExceeded, status 503",
    source="EC2 API reference, Error codes, server errors",
)
def test_the_second_call_fails_on_order(start: Start, refuses: Refuses) -> None:
    """RequestLimitExceeded: status 503 (EC2 API reference, Error codes, server errors)."""
    aws = start("DescribeInstances:2=RequestLimitExceeded")
    aws.ec2.describe_instances()
    with pytest.raises(ClientError) as refused:
        aws.ec2.describe_instances()
    assert refused.value.response["Error"]["Code"] == "RequestLimitExceeded"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    aws.ec2.describe_instances()


def test_a_call_that_fails_before_does_nothing(start: Start, refuses: Refuses) -> None:
    aws = start("RunInstances:1=InsufficientInstanceCapacity")
    refuses("InsufficientInstanceCapacity", aws.launch)
    assert aws.ec2.describe_instances()["Reservations"] == []


def test_a_call_that_fails_after_was_carried_out(start: Start, refuses: Refuses) -> None:
    """As when the answer is lost: the client token finds what was made."""
    aws = start("RunInstances:1=InternalError:after")
    refuses("InternalError", aws.launch, ClientToken="a-token")
    reservations = aws.ec2.describe_instances()["Reservations"]
    (made,) = [i["InstanceId"] for r in reservations for i in r["Instances"]]
    assert aws.launch(ClientToken="a-token") == made


def test_an_answer_can_get_lost(start: Start) -> None:
    aws = start("RunInstances:1=ConnectionLost:after")
    with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
        aws.launch(ClientToken="a-token")
    assert len(aws.ec2.describe_instances()["Reservations"]) == 1


def test_the_service_may_not_know_its_own_command_yet(start: Start, refuses: Refuses) -> None:
    """GetCommandInvocation: InvocationDoesNotExist right after SendCommand is allowed."""
    aws = start("GetCommandInvocation:1=InvocationDoesNotExist")
    instance = aws.running()
    command = aws.ssm.send_command(
        InstanceIds=[instance],
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": ["true"]},
    )["Command"]["CommandId"]
    asked = {"CommandId": command, "InstanceId": instance}
    refuses("InvocationDoesNotExist", aws.ssm.get_command_invocation, **asked)
    aws.until(
        lambda: aws.ssm.get_command_invocation(CommandId=command, InstanceId=instance)["Status"],
        "Success",
    )


def test_every_call_is_in_the_log_with_its_time(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    aws = start("DescribeImages:1=Unavailable", call_log=log)
    instance = aws.launch()
    with pytest.raises(ClientError):
        aws.ec2.describe_images()
    aws.s3.create_bucket(Bucket="logs")
    aws.s3.create_multipart_upload(Bucket="logs", Key="parts")
    ids = []
    wrong: list[tuple[Any, dict[str, Any]]] = [
        (aws.ec2.describe_instances, {"InstanceIds": ["i-0123456789abcdef0"]}),
        (aws.ssm.get_parameter, {"Name": "/nobody"}),
        (aws.s3.get_object, {"Bucket": "logs", "Key": "nothing"}),
        (
            aws.ec2.create_fleet,
            {
                "LaunchTemplateConfigs": [],
                "TargetCapacitySpecification": {"TotalTargetCapacity": 1},
            },
        ),
    ]
    for call, asked in wrong:
        with pytest.raises(ClientError) as refused:
            call(**asked)
        ids.append(refused.value.response["ResponseMetadata"]["RequestId"])
    aws.service.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    seen = [(c["service"], c["operation"], c["status"], c["error"]) for c in lines]
    assert seen == [
        ("ssm", "GetParameter", 200, ""),
        ("ec2", "RunInstances", 200, ""),
        ("ec2", "DescribeImages", 503, "Unavailable"),
        ("s3", "CreateBucket", 200, ""),
        ("s3", "CreateMultipartUpload", 200, ""),
        ("ec2", "DescribeInstances", 400, "InvalidInstanceID.NotFound"),
        ("ssm", "GetParameter", 400, "ParameterNotFound"),
        ("s3", "GetObject", 404, "NoSuchKey"),
        ("ec2", "CreateFleet", 400, "UnsupportedOperation"),
    ]
    assert [c["request_id"] for c in lines[5:]] == ids
    assert len({c["request_id"] for c in lines}) == len(lines)
    assert all(c["ms"] > 0 and c["time"].endswith("+00:00") for c in lines)
    assert instance.startswith("i-")


def test_requests_at_once_do_not_mix(aws: Aws) -> None:
    """moto's books have no locks: every EC2 request holds ours."""
    from concurrent.futures import ThreadPoolExecutor

    client = aws.ec2
    base = aws.base

    def launch(number: int) -> str:
        asked = {"ImageId": base, "InstanceType": "c7i.large", "MinCount": 1, "MaxCount": 1}
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "n", "Value": str(number)}]}]
        made = client.run_instances(**asked, ClientToken=str(number % 8), TagSpecifications=tags)  # type: ignore[arg-type]
        return made["Instances"][0]["InstanceId"]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(launch, range(8)))
    assert len(set(made)) == 8
    for instance in made:
        aws.until_state(instance, "running")
    numbers = {aws.service.fleet.life(i).order.network_index for i in made}  # type: ignore[union-attr]
    assert len(numbers) == 8
