"""What answers in AWS's place, such as a proxy or a login page, is told and never believed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import botocore.session
import pytest
from botocore.model import ServiceModel

from amibuild.aws.answers import refuse_strange
from amibuild.aws.ec2 import LaunchRequest, Network
from amibuild.aws.session import Cloud
from amibuild.errors import AwsError, Denied, NotFound
from amibuild.names import EndpointAccess


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/html"),)
    missing: int = 0


class Stranger(ThreadingHTTPServer):
    """Says one thing to everybody."""

    answer = Answer(b"")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stranger

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + answer.missing))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    server = Stranger(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def cloud(stranger: Stranger) -> Cloud:
    """One for all tests: each would read botocore's models again."""
    return Cloud(region="us-east-1", access=EndpointAccess(stranger.url, "key", "secret"))


LAUNCH = LaunchRequest(
    image_id="ami-1",
    instance_type="c7i.large",
    root_device="/dev/xvda",
    volume_gib=8,
    network=Network("subnet-1", "vpc-1", "us-east-1a"),
    security_group_id="sg-1",
    tags={},
)
COMMAND = "12345678-1234-1234-1234-123456789012"

# By the kind of the protocol: EC2's XML, IAM's, JSON, S3's XML.
CALLS: Mapping[str, Callable[[Cloud], object]] = {
    "DescribeSubnets": lambda c: c.ec2.networks(None),
    "RunInstances": lambda c: c.ec2.run_instance(LAUNCH, "token"),
    "DescribeInstances": lambda c: c.ec2.instance("i-1"),
    "DescribeInstances for reap": lambda c: c.ec2.instances_with("amibuild:expires"),
    "TerminateInstances": lambda c: c.ec2.terminate_instance("i-1"),
    "DeleteVolume": lambda c: c.ec2.delete_volume("vol-1"),
    "DescribeImages": lambda c: c.images.image("ami-1"),
    "CreateImage": lambda c: c.images.create("i-1", "name", "", {}),
    "DeregisterImage": lambda c: c.images.deregister("ami-1"),
    "GetInstanceProfile": lambda c: c.iam.profile_roles("profile"),
    "GetParameter": lambda c: c.ssm.parameter("/x"),
    "SendCommand": lambda c: c.ssm.send("i-1", "true", comment="x", timeout_s=60),
    "GetCommandInvocation": lambda c: c.ssm.invocation(COMMAND, "i-1"),
    "GetServiceSetting": lambda c: c.ssm.host_management_role(),
    "ListObjectsV2": lambda c: c.s3.exists("bucket", "key"),
    "PutObject": lambda c: c.s3.put("bucket", "key", b"x"),
    "DeleteObject": lambda c: c.s3.delete("bucket", "key"),
}
PAGE = b"<!DOCTYPE html>\n<html><body><p>Sign in<br></body></html>"
ANSWERS: Mapping[str, Answer] = {
    "a login page": Answer(PAGE),
    "a page that is well-formed": Answer(b"<html><body><p>Sign in</p></body></html>"),
    "another list": Answer(b'["nothing"]', headers=(("Content-Type", "application/json"),)),
    "no text": Answer(bytes(range(256))),
    "deep brackets": Answer(b"[" * 100_000),
    "not found, as a page": Answer(b"<html><body>404 Not Found</body></html>", 404),
    "forbidden, as a page": Answer(b"<html><body>403 Forbidden</body></html>", 403),
    "not found, as JSON of another": Answer(b'{"message": "no Route matched"}', 404),
    "a redirect": Answer(b"<html/>", 302, (("Location", "/login"),)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_strange_answer_is_told_and_is_neither_done_nor_gone(
    stranger: Stranger, cloud: Cloud, call: str, answer: str
) -> None:
    stranger.answer = ANSWERS[answer]
    with pytest.raises(AwsError, match="StrangeAnswer") as told:
        CALLS[call](cloud)
    assert not isinstance(told.value, NotFound | Denied)
    assert not told.value.answered
    assert told.value.hint is not None
    assert told.value.message.isprintable()


ENDS = {
    "DescribeSubnets": b"<DescribeSubnetsResponse><subnetSet><item><subnetId>subnet-1</sub",
    "RunInstances": b"<RunInstancesResponse><instancesSet><item><instan",
    "GetParameter": b'{"Parameter": {"Name": "/x", "Val',
    "DescribeImages": b"<DescribeImagesResponse><imagesSet/></DescribeImages",
}


@pytest.mark.parametrize("call", ENDS)
def test_an_answer_that_breaks_off_is_told(stranger: Stranger, cloud: Cloud, call: str) -> None:
    stranger.answer = Answer(ENDS[call])
    with pytest.raises(AwsError, match="StrangeAnswer"):
        CALLS[call](cloud)


LACKING = {
    "DescribeSubnets": b"<DescribeSubnetsResponse/>",
    "RunInstances": b"<RunInstancesResponse><instancesSet/></RunInstancesResponse>",
    "DescribeInstances": b"<DescribeInstancesResponse><reservationSet><item><instancesSet><item/>"
    b"</instancesSet></item></reservationSet></DescribeInstancesResponse>",
    "CreateImage": b"<CreateImageResponse/>",
    "GetInstanceProfile": b"<GetInstanceProfileResponse><GetInstanceProfileResult/>"
    b"</GetInstanceProfileResponse>",
    "GetParameter": b"{}",
    "SendCommand": b'{"Command": {}}',
    "GetCommandInvocation": b"{}",
    "GetServiceSetting": b"{}",
}


@pytest.mark.parametrize("call", LACKING)
def test_an_answer_without_what_was_asked_for_is_told(
    stranger: Stranger, cloud: Cloud, call: str
) -> None:
    stranger.answer = Answer(LACKING[call])
    with pytest.raises(AwsError, match="lacks what was asked for") as told:
        CALLS[call](cloud)
    assert not told.value.answered


def test_an_error_of_the_services_own_is_still_that(stranger: Stranger, cloud: Cloud) -> None:
    stranger.answer = Answer(
        b"<Response><Errors><Error><Code>InvalidVolume.NotFound</Code><Message>no</Message>"
        b"</Error></Errors></Response>",
        400,
    )
    with pytest.raises(NotFound):
        cloud.ec2.delete_volume("vol-1")
    stranger.answer = Answer(b'{"__type": "ParameterNotFound"}', 400)
    with pytest.raises(NotFound):
        cloud.ssm.parameter("/x")
    stranger.answer = Answer(b"<Error><Code>NoSuchBucket</Code></Error>", 404)
    with pytest.raises(NotFound):
        cloud.s3.exists("bucket", "key")


def test_a_file_that_is_a_page_is_no_answer_but_bytes(
    stranger: Stranger, cloud: Cloud, tmp_path: Path
) -> None:
    """What an object holds is its own affair: its checksum is looked at where it is used."""
    stranger.answer = Answer(PAGE, headers=(("ETag", '"x"'),))
    cloud.s3.get_file("bucket", "key", tmp_path / "it")
    assert (tmp_path / "it").read_bytes() == PAGE


def test_a_login_of_botocores_own_is_not_looked_into() -> None:
    """Its answers are JSON of another protocol, and hold credentials."""
    session = botocore.session.get_session()
    for service, operation in (("sso", "GetRoleCredentials"), ("sso-oidc", "CreateToken")):
        model = ServiceModel(session.get_service_data(service), service)
        answer = {"status_code": 200, "body": b'{"accessToken": "x"}', "headers": {}}
        refuse_strange(operation_model=model.operation_model(operation), response_dict=answer)
