"""The line of each call that `--debug` tells, from a client of botocore itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectTimeoutError

from amibuild.aws.calls import Calls

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

SECRET = "hunter2-hunter2"


class Raw:
    """A body as it comes from a socket."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.body


class Aws:
    """Answers each try with the next of these."""

    def __init__(self, *answers: tuple[int, str] | Exception) -> None:
        self.answers = list(answers)

    def send(self, request: Any, **_: object) -> AWSResponse:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        headers: Any = {"x-amzn-requestid": f"request-{len(self.answers)}"}
        return AWSResponse(request.url, status, headers, Raw(body.encode()))


def client(*answers: tuple[int, str] | Exception) -> SecretsManagerClient:
    """One that tries again at once when the service is not available."""
    session = boto3.Session("AKIAIOSFODNN7EXAMPLE", "x", region_name="us-east-1")
    ticks = iter(range(100))
    Calls(lambda: float(next(ticks))).listen(session.events)
    made: SecretsManagerClient = session.client(
        "secretsmanager", config=Config(retries={"total_max_attempts": 1, "mode": "standard"})
    )

    def again(response: Any, **_: object) -> float | None:
        return 0.0 if response and response[0].status_code == 503 else None

    events: Any = made.meta.events
    events.register("needs-retry", again)
    events.register("before-send", Aws(*answers).send)
    return made


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "amibuild.aws.calls"]


@pytest.fixture(autouse=True)
def debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "amibuild")


def test_a_call_is_a_line_without_what_it_was_given(caplog: pytest.LogCaptureFixture) -> None:
    client((200, f'{{"SecretString": "{SECRET}"}}')).get_secret_value(SecretId=SECRET)
    assert told(caplog) == [
        "secretsmanager GetSecretValue  200  1.000 s  0 retries  request request-0"
    ]


def test_retries_are_counted_and_the_last_answer_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client((503, "{}"), (503, "{}"), (200, "{}")).list_secrets()
    client((503, "{}"), (200, "{}")).list_secrets()
    assert [line.split("  ")[1:4] for line in told(caplog)] == [
        ["200", "1.000 s", "2 retries"],
        ["200", "1.000 s", "1 retry"],
    ]


def test_a_refusal_has_its_code(caplog: pytest.LogCaptureFixture) -> None:
    body = f'{{"__type": "AccessDeniedException", "message": "{SECRET}"}}'
    with pytest.raises(ClientError):
        client((400, body)).get_secret_value(SecretId=SECRET)
    (line,) = told(caplog)
    assert line.startswith("secretsmanager GetSecretValue  400 AccessDeniedException  ")
    assert SECRET not in line


def test_no_answer_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    away = ConnectTimeoutError(endpoint_url=f"https://x/?{SECRET}")
    with pytest.raises(ConnectTimeoutError):
        client(away).list_secrets()
    (line,) = told(caplog)
    assert line.startswith("secretsmanager ListSecrets  ConnectTimeoutError  ")
    assert SECRET not in line
