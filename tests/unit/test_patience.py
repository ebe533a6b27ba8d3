"""How long a call goes on without a network, on a clock of its own."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    ReadTimeoutError,
)

from amibuild import signals
from amibuild.aws.patience import LONGEST_S, PAUSE_S, Patience
from tests.unit.fakes import FakeClock


@dataclass
class Service:
    host: str = "https://ec2.us-east-1.amazonaws.com"


EC2 = Service()
SSM = Service("https://ssm.us-east-1.amazonaws.com")
URL = EC2.host
AWAY = EndpointConnectionError(endpoint_url=URL)


def answered(*services: Service) -> tuple[Patience, FakeClock]:
    clock = FakeClock()
    patience = Patience(clock)
    for service in services:
        patience.hear(endpoint=service, caught_exception=None)
    return patience, clock


def tries_until_it_ends(patience: Patience, clock: FakeClock) -> float:
    """The seconds that one call goes on."""
    began = clock.elapsed
    while (pause := patience.hear(endpoint=EC2, caught_exception=AWAY)) is not None:
        clock.sleep(pause)
    return clock.elapsed - began


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        ConnectTimeoutError(endpoint_url=URL),
        ProxyConnectionError(proxy_url="http://proxy:3128"),
    ],
)
def test_who_answered_before_is_tried_again(error: Exception) -> None:
    patience, _ = answered(EC2)
    assert patience.hear(endpoint=EC2, caught_exception=error) == PAUSE_S


def test_who_never_answered_is_left_to_botocore() -> None:
    patience, _ = answered(SSM)
    assert patience.hear(endpoint=EC2, caught_exception=AWAY) is None


@pytest.mark.parametrize(
    "error",
    [ReadTimeoutError(endpoint_url=URL), ConnectionClosedError(endpoint_url=URL), OSError("x")],
)
def test_what_was_sent_is_left_to_botocore(error: Exception) -> None:
    """It may have been carried out; and a network that is away does not even connect."""
    patience, _ = answered(EC2)
    assert patience.hear(endpoint=EC2, caught_exception=error) is None


def test_it_ends_and_the_next_call_does_not_begin_anew() -> None:
    """Else each removal of a bake that ended so would take as long."""
    patience, clock = answered(EC2)
    assert tries_until_it_ends(patience, clock) == pytest.approx(LONGEST_S, abs=PAUSE_S)
    assert tries_until_it_ends(patience, clock) == 0


def test_after_an_answer_it_is_as_patient_again() -> None:
    patience, clock = answered(EC2)
    tries_until_it_ends(patience, clock)
    patience.hear(endpoint=EC2, caught_exception=None)
    assert tries_until_it_ends(patience, clock) == pytest.approx(LONGEST_S, abs=PAUSE_S)


def test_once_interrupted_nobody_waits() -> None:
    patience, _ = answered(EC2)
    with signals.catch(), signals.hold(deliver=False):
        assert patience.hear(endpoint=EC2, caught_exception=AWAY) is not None
        os.kill(os.getpid(), signal.SIGINT)
        assert patience.hear(endpoint=EC2, caught_exception=AWAY) is None
    assert patience.hear(endpoint=EC2, caught_exception=AWAY) is not None


def test_the_wait_is_told_once_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    patience, clock = answered(EC2)
    patience.hear(endpoint=EC2, caught_exception=AWAY)
    assert not caplog.messages
    for _ in range(2):
        clock.sleep(20)
        patience.hear(endpoint=EC2, caught_exception=AWAY)
    patience.hear(endpoint=EC2, caught_exception=None)
    assert caplog.messages == [
        f"no connection to {URL} since 20 s; trying again until it is 900 s",
        f"{URL} answers again, after 40 s",
    ]


def test_a_short_break_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    patience, clock = answered(EC2)
    patience.hear(endpoint=EC2, caught_exception=AWAY)
    clock.sleep(PAUSE_S)
    patience.hear(endpoint=EC2, caught_exception=None)
    assert not caplog.messages
