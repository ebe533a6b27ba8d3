"""Spot instances: launched at once at one price, and taken back when that was ordered.

RunInstances with InstanceMarketOptions makes a one-time request, as on EC2. The other ways to ask
for one (RequestSpotInstances, RequestSpotFleet, CreateFleet) are not here.

Sources: EC2 API reference, RunInstances (InstanceMarketOptions), SpotInstanceRequest, "Error
codes": SpotMaxPriceTooLow; user guide, "Spot Instance interruptions": the metadata path
`spot/instance-action` tells when, and StateReason is Server.SpotInstanceTermination.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.loading import load_instance_types

# US dollars an hour, for every type in every zone: low, and above what nobody would take.
PRICE = 0.01
TAKEN_BACK = ("Server.SpotInstanceTermination", "Spot instance termination")


@dataclass
class SpotRequest:
    instance: Any
    max_price: str | None
    id: str = field(default_factory=lambda: f"sir-{secrets.token_hex(4)}")
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    cancelled: bool = False

    def told(self) -> dict[str, Any]:
        """As DescribeSpotInstanceRequests has it."""
        ended = self.instance.state in {"shutting-down", "terminated"}
        reason = self.instance.state_reason
        taken = reason is not None and reason.code == TAKEN_BACK[0]
        state, code = "active", "fulfilled"
        if ended:
            state = "closed"
            code = "instance-terminated-no-capacity" if taken else "instance-terminated-by-user"
        if self.cancelled:
            state = "cancelled"
            code = code if ended else "request-canceled-and-instance-running"
        return {
            "SpotInstanceRequestId": self.id,
            "InstanceId": self.instance.id,
            "CreateTime": self.created,
            "SpotPrice": self.max_price or f"{PRICE:.6f}",
            "State": state,
            "Status": {"Code": code, "Message": code, "UpdateTime": self.created},
            "Type": "one-time",
            "InstanceInterruptionBehavior": "terminate",
            "LaunchedAvailabilityZone": self.instance.availability_zone,
            "ProductDescription": "Linux/UNIX",
            "LaunchSpecification": {
                "ImageId": self.instance.image_id,
                "InstanceType": self.instance.instance_type,
            },
            "Tags": self.instance.ec2_backend.describe_tags({"resource-id": [self.id]}),
        }


def check_market(params: dict[str, Any]) -> dict[str, Any] | None:
    """The spot options of a launch, None when it is none. Raises: Refusal."""
    market = params.get("InstanceMarketOptions")
    if not market:
        return None
    kind = market.get("MarketType", "spot")
    if kind != "spot":
        raise Refusal(
            "UnsupportedOperation",
            f"RunInstances with MarketType {kind}: the local endpoint does not have it",
        )
    options: dict[str, Any] = market.get("SpotOptions", {})
    behaviour = options.get("InstanceInterruptionBehavior", "terminate")
    if options.get("SpotInstanceType", "one-time") != "one-time" or behaviour != "terminate":
        raise Refusal(
            "UnsupportedOperation",
            "RunInstances with a persistent spot request: the local endpoint does not have it",
        )
    price = options.get("MaxPrice")
    if price is not None:
        _check_price(price)
    return options


def _check_price(text: str) -> None:
    try:
        price = float(text)
    except ValueError as error:
        raise Refusal("InvalidParameterValue", f"Invalid value '{text}' for MaxPrice.") from error
    if price < PRICE:
        raise Refusal(
            "SpotMaxPriceTooLow",
            f"Your Spot request price of {text} is lower than the minimum required Spot request "
            f"fulfillment price of {PRICE}.",
        )


def make_spot(backend: Any, instance: Any, options: dict[str, Any], tags: dict[str, str]) -> None:
    """A launched instance's request; and when it shall be taken back, if that was ordered."""
    request = SpotRequest(instance, options.get("MaxPrice"))
    backend.spot[request.id] = request
    if tags:
        backend.create_tags([request.id], tags)
    instance.lifecycle = "spot"
    instance.spot_instance_request_id = request.id
    fault = Desk.current.faults.next("spot")
    instance.taken_back_after_s = float(fault.code) if fault is not None else None
    instance.taken_back_at = None


def begin_to_run(backend: Any, instance: Any) -> None:
    """Its time begins: told in its metadata from now on, as EC2's notice of two minutes is."""
    delay_s = getattr(instance, "taken_back_after_s", None)
    if delay_s is not None and instance.taken_back_at is None:
        instance.taken_back_at = datetime.now(UTC) + timedelta(seconds=delay_s)
        Desk.current.spawn(_take_back, backend, instance, delay_s)


def _take_back(backend: Any, instance: Any, delay_s: float) -> None:
    desk = Desk.current
    if not desk.closing.wait(delay_s):
        with desk.lock:
            backend.terminate_instance(instance, TAKEN_BACK)


class SpotResponses(EC2Response):
    params: dict[str, Any]

    def describe_spot_instance_requests(self) -> ActionResult:
        self.error_on_dryrun()
        asked: dict[str, Any] = self._filters_from_querystring()
        told = [request.told() for request in self._requests()]
        members = {
            "instance-id": "InstanceId",
            "spot-instance-request-id": "SpotInstanceRequestId",
            "state": "State",
        }
        for name, values in asked.items():
            if name not in members:
                raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
            told = [one for one in told if one[members[name]] in values]
        return ActionResult({"SpotInstanceRequests": told})

    def cancel_spot_instance_requests(self) -> ActionResult:
        """The instance goes on running (CancelSpotInstanceRequests)."""
        requests = list(self._requests())
        self.error_on_dryrun()
        for request in requests:
            request.cancelled = True
        told = [{"SpotInstanceRequestId": r.id, "State": "cancelled"} for r in requests]
        return ActionResult({"CancelledSpotInstanceRequests": told})

    def describe_spot_price_history(self) -> ActionResult:
        """moto's price is so low that every maximum is above it."""
        load_instance_types()
        self.error_on_dryrun()
        backend: Any = self.ec2_backend
        found = backend.describe_spot_price_history(
            self.params.get("InstanceTypes", []),
            {k: v for k, v in self._filters_from_querystring().items() if "description" not in k},
        )
        return ActionResult(
            {
                "SpotPriceHistory": [
                    {
                        "InstanceType": offer["InstanceType"],
                        "ProductDescription": "Linux/UNIX",
                        "SpotPrice": f"{PRICE:.6f}",
                        "AvailabilityZone": offer["Location"],
                        "Timestamp": datetime.now(UTC),
                    }
                    for offer in found
                ]
            }
        )

    def _requests(self) -> Iterator[SpotRequest]:
        spot: dict[str, SpotRequest] = self.ec2_backend.spot
        for id_ in self.params.get("SpotInstanceRequestIds", []) or list(spot):
            if id_ not in spot:
                raise Refusal(
                    "InvalidSpotInstanceRequestID.NotFound",
                    f"The spot instance request ID '{id_}' does not exist",
                )
            yield spot[id_]
