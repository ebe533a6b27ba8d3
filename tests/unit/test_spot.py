"""Of spot builders what needs no endpoint: prices, the order of launches, looks for a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild.aws.ec2 import Ec2, InstanceFacts, LaunchRequest, Network, Spot
from amibuild.aws.session import Cloud
from amibuild.cli.bake import builder_text
from amibuild.errors import AwsError, CommandFailed, NoCapacity, RecipeError, TakenBack
from amibuild.journal import Journal, Noted, ResourceKind, read
from amibuild.names import BakeId, InstanceId
from amibuild.recipe.load import load_recipe
from amibuild.recipe.model import Builder
from amibuild.scope import Scope
from amibuild.steps.launch import Launch, Purpose, launch
from amibuild.steps.spot import LOOK_EVERY_S, LossWatch, launch_builder, loss_told
from amibuild.wait import Observer, Waiting, silent

BAKE = BakeId("20261128-024500-abcdef")
MACHINE = InstanceId("i-0123456789abcdef0")


@pytest.mark.parametrize(
    ("text", "price"),
    [('"0.05"', "0.05"), ("0.05", "0.05"), ("1", "1"), ("0.0011", "0.0011"), ('"12.5"', "12.5")],
)
def test_a_price_is_a_number_or_a_string(tmp_path: Path, text: str, price: str) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text(f'[image]\nname = "a1"\n[builder]\nspot = true\nspot_max_price = {text}\n')
    assert load_recipe(path).builder.spot_max_price == price


def test_a_price_of_the_command_line_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text('[image]\nname = "a1"\n')
    spot = load_recipe(path, ["builder.spot=true", "builder.spot_max_price=0.07"]).builder
    assert (spot.spot, spot.spot_max_price) == (True, "0.07")
    with pytest.raises(RecipeError, match="spot_max_price is for a spot machine"):
        load_recipe(path, ["builder.spot_max_price=0.07"])


@pytest.mark.parametrize(
    ("builder", "told"),
    [
        (Builder(), "c7i.large or c6i.large, on demand"),
        (Builder(spot=True), "c7i.large or c6i.large, spot, else on demand"),
        (
            Builder(spot=True, spot_max_price="0.05"),
            "c7i.large or c6i.large, spot up to $0.05 an hour, else on demand",
        ),
    ],
)
def test_a_plan_says_what_the_builder_will_be(builder: Builder, told: str) -> None:
    assert builder_text(builder) == told


class Market(Ec2):
    """Has only what `has` says; writes down what it was asked for."""

    def __init__(self, has: Callable[[LaunchRequest], bool]) -> None:
        self.has = has
        self.asked: list[tuple[str | None, str, str]] = []
        self.tokens: list[str] = []

    def run_instance(self, request: LaunchRequest, token: str) -> InstanceId:
        price = request.spot.max_price if request.spot else None
        self.asked.append((price, request.instance_type, request.network.zone))
        self.tokens.append(token)
        if not self.has(request):
            raise NoCapacity(
                operation="RunInstances", code="SpotMaxPriceTooLow", message="no", region="r"
            )
        return MACHINE

    def instance(self, instance_id: str) -> InstanceFacts:
        return InstanceFacts(MACHINE, "running", "", "a", is_spot=True)


class Machine(Ec2):
    """One machine that is there, was taken back, or can't be looked at."""

    def __init__(self, facts: InstanceFacts | None) -> None:
        self.facts = facts
        self.looks = 0

    def instance(self, instance_id: str) -> InstanceFacts:
        self.looks += 1
        if self.facts is None:
            raise AwsError(operation="DescribeInstances", code="X", message="x", region="r")
        return self.facts


class Account(Cloud):
    def __init__(self, ec2: Ec2) -> None:
        self.ec2 = ec2


class NothingThere:
    def find(self, kind: ResourceKind, bake_id: BakeId, token: str, name: str) -> list[str]:
        return []

    def begin(self, kind: ResourceKind, id_: str) -> None: ...

    def remove(
        self, kind: ResourceKind, id_: str, token: str, observer: Observer, hidden_s: float = 0.0
    ) -> None: ...

    def command(self, kind: ResourceKind, id_: str) -> str:
        return ""


WANTED = Launch(
    purpose=Purpose.BUILD,
    image_id="ami-1",
    root_device="/dev/xvda",
    volume_gib=8,
    instance_types=("c7i.large", "c6i.large"),
    networks=(Network("subnet-1", "vpc-1", "a"), Network("subnet-2", "vpc-1", "b")),
    security_group_id="sg-1",
    instance_profile=None,
    kms_key=None,
    public_ip=None,
    user_data=None,
    tags={},
    timeout_s=60,
    spot=Spot("0.05"),
)
ORDER = [("c7i.large", "a"), ("c7i.large", "b"), ("c6i.large", "a"), ("c6i.large", "b")]


def launched(market: Market, folder: Path, wanted: Launch = WANTED) -> list[str]:
    """What the journal has noted of a launch."""
    path = folder / "journal.jsonl"
    with (
        Journal(path) as journal,
        Scope(journal, NothingThere(), bake_id=BAKE, region="r") as scope,
    ):
        launch_builder(Account(market), scope, journal, BAKE, wanted)
    return [event.text for event in read(path) if isinstance(event, Noted)]


def test_spot_is_tried_everywhere_before_anything_on_demand(tmp_path: Path) -> None:
    market = Market(lambda request: request.spot is None)
    none, note = launched(market, tmp_path)
    assert none == "no room on spot for " + ", ".join(f"{kind} in {zone}" for kind, zone in ORDER)
    assert market.asked == [*(("0.05", *one) for one in ORDER), (None, *ORDER[0])]
    assert len(set(market.tokens)) == len(market.tokens), "EC2 knows each token by its first use"
    assert note.startswith("SpotMaxPriceTooLow: no spot machine is to be had")


def test_the_first_that_is_to_be_had_is_taken(tmp_path: Path) -> None:
    market = Market(lambda request: request.network.zone == "b")
    none, got = launched(market, tmp_path)
    assert none == "no room on spot for c7i.large in a"
    assert got.endswith(" is a c7i.large in b on spot")
    assert market.asked == [("0.05", *one) for one in ORDER[:2]]


def test_a_builder_on_demand_is_asked_for_as_before(tmp_path: Path) -> None:
    market = Market(lambda request: False)
    with pytest.raises(NoCapacity):
        launched(market, tmp_path, replace(WANTED, spot=None))
    assert market.asked == [(None, *one) for one in ORDER]


def test_neither_to_be_had_is_an_error(tmp_path: Path) -> None:
    market = Market(lambda request: False)
    with pytest.raises(NoCapacity):
        launched(market, tmp_path)
    assert len(market.asked) == 2 * len(ORDER)


def test_the_tokens_of_the_second_try_are_others(tmp_path: Path) -> None:
    """With one token EC2 would answer with the machine that is gone."""
    market = Market(lambda request: True)
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Scope(journal, NothingThere(), bake_id=BAKE, region="r") as scope,
    ):
        for spot in (Spot(), None):
            launch(Account(market), scope, BAKE, replace(WANTED, spot=spot), silent)
    first, second = market.tokens
    assert first != second


def facts(*, taken_back: bool) -> InstanceFacts:
    state = "terminated" if taken_back else "running"
    code = "Server.SpotInstanceTermination" if taken_back else ""
    return InstanceFacts(MACHINE, state, "the reason", "a", is_spot=True, reason_code=code)


FAILED = CommandFailed(what="os", exit_code=None, reason="did not run")


def test_an_error_that_comes_of_a_loss_is_told_as_one() -> None:
    cloud = Account(Machine(facts(taken_back=True)))
    with (
        pytest.raises(TakenBack, match="is terminated: the reason") as lost,
        loss_told(cloud, MACHINE),
    ):
        raise FAILED
    assert lost.value.what == MACHINE
    assert lost.value.__cause__ is FAILED


@pytest.mark.parametrize("seen", [facts(taken_back=False), None], ids=["it runs", "unknown"])
def test_any_other_error_stays_what_it_is(seen: InstanceFacts | None) -> None:
    with pytest.raises(CommandFailed), loss_told(Account(Machine(seen)), MACHINE):
        raise FAILED


def waits(watch: LossWatch, until_s: int) -> None:
    for elapsed in range(until_s):
        watch(Waiting("os", "InProgress", float(elapsed), 3600.0))


def test_a_loss_ends_a_wait_that_would_go_on() -> None:
    """Of a command on a machine that is gone nobody reports the end."""
    machine = Machine(facts(taken_back=False))
    watch = LossWatch(Account(machine), MACHINE, silent)
    waits(watch, 100)
    assert machine.looks == 99 // LOOK_EVERY_S
    machine.facts = facts(taken_back=True)
    with pytest.raises(TakenBack):
        waits(watch, 100)


def test_each_wait_begins_anew_and_a_short_one_costs_no_call() -> None:
    machine = Machine(facts(taken_back=True))
    watch = LossWatch(Account(machine), MACHINE, silent)
    for _ in range(20):
        waits(watch, int(LOOK_EVERY_S))
    assert machine.looks == 0


def test_a_look_that_fails_does_not_end_the_wait() -> None:
    machine = Machine(None)
    heard: list[Waiting] = []
    waits(LossWatch(Account(machine), MACHINE, heard.append), 40)
    assert (machine.looks, len(heard)) == (2, 40)
