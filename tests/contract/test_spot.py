"""Spot instances: launched as asked for, refused under the price, taken back on order."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from amibuild.local.overlay import launching
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.test_metadata import Inside

ERROR_CODES = "EC2 API reference, Error codes"
INTERRUPTIONS = "EC2 user guide, Spot Instance interruptions"


def spot(**options: Any) -> dict[str, Any]:
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


@answers(
    "RunInstances",
    "InstanceMarketOptions of type spot",
    "InstanceLifecycle spot, and a request that DescribeSpotInstanceRequests tells of",
    source="EC2 API reference, RunInstances, DescribeSpotInstanceRequests",
)
def test_a_spot_instance_has_its_request(aws: Aws) -> None:
    instance = aws.running(**spot(MaxPrice="0.05"))
    seen = aws.instance(instance)
    assert seen["InstanceLifecycle"] == "spot"
    (request,) = aws.ec2.describe_spot_instance_requests(
        SpotInstanceRequestIds=[seen["SpotInstanceRequestId"]]
    )["SpotInstanceRequests"]
    assert (request["InstanceId"], request["State"], request["SpotPrice"]) == (
        instance,
        "active",
        "0.05",
    )
    assert Inside(aws, instance).text("meta-data/instance-life-cycle") == "spot"
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    (request,) = aws.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert (request["State"], request["Status"]["Code"]) == (
        "closed",
        "instance-terminated-by-user",
    )


def test_an_instance_on_demand_has_none(aws: Aws) -> None:
    assert "InstanceLifecycle" not in aws.instance(aws.launch())
    assert aws.ec2.describe_spot_instance_requests()["SpotInstanceRequests"] == []


@answers(
    "RunInstances",
    "a spot instance whose MaxPrice is under the price",
    "SpotMaxPriceTooLow",
    source=ERROR_CODES,
    ours="every type costs the same, as DescribeSpotPriceHistory tells",
)
def test_a_price_that_is_too_low_is_refused(aws: Aws, refuses: Refuses) -> None:
    history = aws.ec2.describe_spot_price_history(InstanceTypes=["c7i.large"])
    price = float(history["SpotPriceHistory"][0]["SpotPrice"])
    refuses("SpotMaxPriceTooLow", aws.launch, **spot(MaxPrice=str(price / 10)))
    aws.launch(**spot(MaxPrice=str(price)))


@pytest.mark.parametrize(
    ("code", "market"),
    [
        ("UnsupportedOperation", {"MarketType": "capacity-block"}),
        ("UnsupportedOperation", spot(SpotInstanceType="persistent")["InstanceMarketOptions"]),
        ("InvalidParameterValue", spot(MaxPrice="cheap")["InstanceMarketOptions"]),
    ],
    ids=["capacity block", "persistent", "no price"],
)
@answers(
    "RunInstances",
    "a capacity block, or a persistent spot request",
    "launches it",
    source="EC2 API reference, InstanceMarketOptionsRequest",
    ours="UnsupportedOperation",
)
def test_other_markets_are_refused_by_name(
    aws: Aws, refuses: Refuses, code: str, market: dict[str, Any]
) -> None:
    refuses(code, aws.launch, InstanceMarketOptions=market)
    assert aws.ec2.describe_instances()["Reservations"] == []


@answers(
    "RunInstances",
    "MinCount spot instances are more than the limit leaves",
    "MaxSpotInstanceCountExceeded",
    source=f"{ERROR_CODES}; its message: meadowdata/meadowrun #84",
    ours="one limit for these and the others: they run on one host",
)
def test_spot_instances_over_the_limit_are_refused_in_their_own_words(
    aws: Aws, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "INSTANCE_LIMIT", 2)
    aws.launch(**spot())
    many = {"MinCount": 2, "MaxCount": 2}
    message = refuses("MaxSpotInstanceCountExceeded", aws.launch, **many, **spot())
    assert message == "Max spot instance count exceeded"
    refuses("InstanceLimitExceeded", aws.launch, **many)


@answers(
    "StopInstances",
    "a spot instance of a one-time request",
    "UnsupportedOperation",
    source="EC2 user guide, Stop a Spot Instance",
)
def test_a_one_time_spot_instance_cannot_be_stopped(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running(**spot())
    message = refuses("UnsupportedOperation", aws.ec2.stop_instances, InstanceIds=[instance])
    assert message.startswith(f"You can't stop the Spot Instance '{instance}'")


@answers(
    "CancelSpotInstanceRequests",
    "its instance runs",
    "the request is cancelled, the instance runs on",
    source="EC2 API reference, CancelSpotInstanceRequests",
)
def test_a_cancelled_request_leaves_its_instance(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running(**spot())
    id_ = aws.instance(instance)["SpotInstanceRequestId"]
    (told,) = aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[id_])[
        "CancelledSpotInstanceRequests"
    ]
    assert told == {"SpotInstanceRequestId": id_, "State": "cancelled"}
    assert aws.state(instance) == "running"
    refuses(
        "InvalidSpotInstanceRequestID.NotFound",
        aws.ec2.cancel_spot_instance_requests,
        SpotInstanceRequestIds=["sir-01234567"],
    )


@answers(
    "DescribeInstances",
    "EC2 took a spot instance back",
    "terminated, StateReason Server.SpotInstanceTermination; spot/instance-action told before",
    source=INTERRUPTIONS,
    ours="on order: --fault spot:N=SECONDS",
)
def test_a_spot_instance_is_taken_back_on_order(start: Start) -> None:
    aws = start("spot:2=0.5")
    kept, taken = aws.running(**spot()), aws.launch(**spot())
    aws.until_state(taken, "running")
    notice = json.loads(Inside(aws, taken).text("meta-data/spot/instance-action"))
    assert notice["action"] == "terminate"
    datetime.strptime(notice["time"], "%Y-%m-%dT%H:%M:%SZ")
    aws.until_state(taken, "terminated")
    assert aws.instance(taken)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert aws.state(kept) == "running"
    assert Inside(aws, kept).get("meta-data/spot/instance-action").status == 404
    by_id = {
        r["InstanceId"]: r["Status"]["Code"]
        for r in aws.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    }
    assert by_id == {kept: "fulfilled", taken: "instance-terminated-no-capacity"}
