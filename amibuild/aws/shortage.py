"""Capacity that is short is an answer, which the next type or zone mends, and no second try.

EC2 sends it as an error of the server (API reference, "Server error codes"), and botocore tries
again after those: ten times for each type in each zone of a recipe.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

EVENT = "needs-retry.ec2.RunInstances"
CODES = frozenset({"InsufficientCapacity", "InsufficientInstanceCapacity"})


def tell_at_once(*, response: tuple[object, dict[str, Any]] | None, **_: object) -> None:
    """The subscriber of EVENT, whose longer name comes before botocore's own.

    Raises: ClientError, as botocore would after its last try.
    """
    parsed = response[1] if response else {}
    if parsed.get("Error", {}).get("Code") in CODES:
        raise ClientError(parsed, "RunInstances")  # type: ignore[arg-type]  # it is one
