"""When "not found" means "gone", on a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from amibuild.aws.removal import UNSEEN_LOOKS, CloudRemover
from amibuild.aws.session import Cloud
from amibuild.errors import NotFound
from amibuild.journal import ResourceKind
from amibuild.names import EndpointAccess
from tests.unit.fakes import FakeClock


@dataclass
class Ec2:
    """Shows nothing before `shown_at`; removals are written down."""

    clock: FakeClock
    shown_at: float
    looks: int = 0
    removed: list[str] = field(default_factory=list)

    def delete_security_group(self, group: str) -> None:
        self.looks += 1
        if self.clock.elapsed < self.shown_at:
            raise NotFound(operation="Delete", code="NotFound", message="", region="us-east-1")
        self.removed.append(group)

    def instance(self, instance: str) -> None:
        self.delete_security_group(instance)
        raise AssertionError("it is hidden in this test")


def remover(shown_at: float) -> tuple[CloudRemover, Ec2, FakeClock]:
    clock = FakeClock()
    cloud = Cloud(region="us-east-1", access=EndpointAccess("http://127.0.0.1:1", "a", "b"))
    ec2 = Ec2(clock, shown_at)
    cloud.__dict__["ec2"] = ec2
    return CloudRemover(cloud, clock), ec2, clock


def test_what_is_hidden_for_seconds_is_removed_once_it_shows() -> None:
    removing, ec2, _ = remover(shown_at=20)
    removing.remove(ResourceKind.SECURITY_GROUP, "sg-1", "", hidden_s=30)
    assert ec2.removed == ["sg-1"]


@pytest.mark.parametrize("kind", [ResourceKind.SECURITY_GROUP, ResourceKind.INSTANCE])
@pytest.mark.parametrize("hidden_s", [0.0, 30.0])
def test_what_never_shows_is_gone_some_looks_after_it_could_be_hidden(
    kind: ResourceKind, hidden_s: float
) -> None:
    removing, ec2, clock = remover(shown_at=3600)
    removing.remove(kind, "x-1", "", hidden_s=hidden_s)
    assert ec2.looks >= UNSEEN_LOOKS
    assert hidden_s <= clock.elapsed < hidden_s + 5
