"""Lists in parts: MaxResults and NextToken, for EC2 and for SSM.

Sources: EC2 API reference, DescribeInstances (5 to 1,000 a page, and not together with ids) and
"Error codes"; SSM API reference, each operation's MaxResults, InvalidNextToken.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from moto.ssm.exceptions import SSMException

from amibuild.local.overlay.desk import Refusal

Item = TypeVar("Item")
EC2_LIMITS = range(5, 1001)
_MARK = b"amibuild:"


def page(
    found: Sequence[Item], params: dict[str, Any], ids: Sequence[str]
) -> tuple[list[Item], str | None]:
    """The part of a list that an EC2 request asks for, and the token of the next one."""
    limit = params.get("MaxResults")
    if limit is not None and ids:
        raise Refusal(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    if limit is not None and int(limit) not in EC2_LIMITS:
        raise Refusal(
            "InvalidParameterValue",
            f"Value ( {limit} ) for parameter maxResults is invalid. Expecting a value between "
            f"{EC2_LIMITS[0]} and {EC2_LIMITS[-1]}.",
        )
    first = _first(params.get("NextToken"))
    if first is None:
        raise Refusal("InvalidNextToken", "The token is invalid.")
    return _part(found, first, int(limit or EC2_LIMITS[-1]))


def sorted_page(
    items: list[Item], params: dict[str, Any], key: Callable[[Item], str], *, least: int = 1
) -> tuple[list[Item], str | None]:
    """The same by key and not by place: what goes between two requests moves nothing.

    In the order of `key`, when paged. `least` is the smallest MaxResults.
    """
    size, token = params.get("MaxResults"), params.get("NextToken")
    if size is not None and size < least:
        raise Refusal(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value of {least} "
            "or more.",
        )
    if size is None and token is None:
        return items, None
    after = _decoded(token) if token else ""
    rest = sorted((item for item in items if key(item) > after), key=key)
    shown = rest[: size or len(rest)]
    more = len(rest) > len(shown)
    return shown, base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if more else None


def ssm_page(
    found: Sequence[Item], limit: Any, token: Any, allowed: range, usual: int | None = None
) -> tuple[list[Item], str | None]:
    """The same for an SSM request, whose limits differ by operation."""
    if limit is not None and int(limit) not in allowed:
        more = int(limit) > allowed[-1]
        raise SSMException(
            "ValidationException",
            f"1 validation error detected: Value '{limit}' at 'maxResults' failed to satisfy "
            f"constraint: Member must have value {'less' if more else 'greater'} than or equal to "
            f"{allowed[-1] if more else allowed[0]}",
        )
    first = _first(token)
    if first is None:
        raise SSMException("InvalidNextToken", "")
    return _part(found, first, int(limit or usual or allowed[-1]))


def _part(found: Sequence[Item], first: int, limit: int) -> tuple[list[Item], str | None]:
    last = first + limit
    token = base64.b64encode(_MARK + str(last).encode()).decode() if last < len(found) else None
    return list(found[first:last]), token


def _first(token: str | None) -> int | None:
    """Where the part begins; None for a token that we never gave."""
    if not token:
        return 0
    try:
        said = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        return None
    number = said.removeprefix(_MARK)
    return int(number) if said.startswith(_MARK) and number.isdigit() else None


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refusal("InvalidNextToken", "The specified NextToken is not valid.") from error
