"""The network between the controller and EC2 goes away in the midst of a bake, and comes back."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from amibuild.aws.patience import LONGEST_S
from amibuild.aws.session import Cloud
from amibuild.errors import AwsError
from amibuild.journal import Shown, StepStarted
from amibuild.local.machines.base import MetadataRequest, MetadataResponse
from amibuild.local.machines.relay import Relay
from amibuild.names import EndpointAccess
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, new_project
from tests.contract.conftest import KEY, REGION, Start
from tests.contract.swift import SwiftClock, swift

TEN_MINUTES_S = 600


def nothing(_: MetadataRequest) -> MetadataResponse:
    return MetadataResponse(404)


@dataclass(frozen=True)
class Line:
    """What the calls go through on their way to the endpoint, and can be cut."""

    port: int
    ends_at: int
    relays: list[Relay] = field(default_factory=list)

    def open(self) -> None:
        unused = socket.create_server(("127.0.0.1", 0))
        listener = socket.create_server(("127.0.0.1", self.port))
        self.relays.append(Relay([unused, listener], nothing, self.ends_at))

    def cut(self) -> None:
        self.relays.pop().close()


@dataclass(frozen=True)
class Access(EndpointAccess):
    """Asked before each try of a call, which is when the line may be mended."""

    line: Line
    clock: SwiftClock
    cut_at: list[float] = field(default_factory=list)

    def cut(self) -> None:
        self.line.cut()
        self.cut_at.append(self.clock.monotonic())

    def is_gone(self) -> bool:
        away = not self.line.relays and bool(self.cut_at)
        if away and self.clock.monotonic() - self.cut_at[-1] > TEN_MINUTES_S:
            self.line.open()
        return False


def access_to(url: str, clock: SwiftClock) -> Access:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    line = Line(port, int(url.rpartition(":")[2]))
    return Access(f"http://127.0.0.1:{port}", KEY.id, KEY.secret, line, clock)


def test_ten_minutes_without_a_network_cost_nothing_but_time(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut right before a machine is launched, and before the image is made of it."""
    calls = tmp_path / "calls"
    aws = start(script=Answers(), call_log=calls)
    before = account(aws)
    with swift() as clock:
        access = access_to(aws.service.url, clock)
        access.line.open()

        def cut(shown: Shown) -> None:
            if isinstance(shown, StepStarted) and shown.step in {"launch", "capture"}:
                access.cut()

        cloud = Cloud(region=REGION, access=access)
        result = builder.run(new_project(tmp_path / "project"), cloud, cut)
        access.line.cut()
    after = account(aws)
    assert len(access.cut_at) == 2
    assert sum("answers again" in message for message in caplog.messages) >= 2
    assert after["images"] - before["images"] == {result.image_id}
    assert {k: after[k] - before[k] for k in ("instances", "volumes", "groups")} == {
        "instances": set(),
        "volumes": set(),
        "groups": set(),
    }
    made = [json.loads(line)["operation"] for line in calls.read_text().splitlines()]
    assert {name: made.count(name) for name in ("RunInstances", "CreateImage")} == {
        "RunInstances": 2,  # the builder, and the machine that proves the image
        "CreateImage": 1,
    }


def test_what_was_never_reached_fails_as_soon_as_botocore_gives_up() -> None:
    with swift() as clock:
        access = access_to("http://127.0.0.1:1", clock)
        began = clock.monotonic()
        with pytest.raises(AwsError) as refused:
            assert Cloud(region=REGION, access=access).ec2.networks(None)
        assert clock.monotonic() - began < LONGEST_S / 3
    assert refused.value.code == "NoConnection"


def test_what_must_be_at_once_does_not_wait_for_the_network(start: Start) -> None:
    with swift() as clock:
        access = access_to(start().service.url, clock)
        access.line.open()
        cloud = Cloud(region=REGION, access=access)
        assert cloud.ec2_at_once.networks(None)
        assert cloud.ec2.networks(None)
        access.cut()
        began = clock.monotonic()
        with pytest.raises(AwsError):
            cloud.ec2_at_once.networks(None)
        assert clock.monotonic() - began < 60
