"""The single values of a recipe: what each may look like, and what is said of one that does not."""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from amibuild.recipe.document import Misplaced

T = TypeVar("T")

AMI_ID = re.compile(r"ami-[0-9a-f]{8}(?:[0-9a-f]{9})?")
ACCOUNT = re.compile(r"\d{12}")
CHANNEL = re.compile(r"[a-z][a-z0-9-]{0,31}")
INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
SUBNET = re.compile(r"subnet-[0-9a-f]{8}(?:[0-9a-f]{9})?")
URL = re.compile(r"https?://[^\s/]+(?:/\S*)?")
HOST = re.compile(r"(?:(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?")
LONGEST_HOST = 255
REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
STEP_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
SECRET_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
PRICE = re.compile(r"\d{1,6}(?:\.\d{1,6})?")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
BASTION = re.compile(r"(?:[A-Za-z0-9_.-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?")
# EC2 takes more than this (API reference, SpotMarketOptions); a tenfold of what the largest machine
# costs on demand is a slip of the point.
LEAST_PRICE, MOST_PRICE = Decimal("0.001"), Decimal(1000)


def network(value: str) -> str:
    try:
        ipaddress.IPv4Interface(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a network such as 203.0.113.7/32") from None
    if "/" not in value:
        raise ValueError(f"{value!r} is not a network such as {value}/32")
    return value


def endpoint(value: str) -> str:
    """As botocore takes it, which raises for another one when a client is made."""
    if URL.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a URL")
    try:
        parts = urlsplit(value)
        _ = parts.port
        host = parts.hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from None
    if ":" not in host and (HOST.fullmatch(host) is None or len(host) > LONGEST_HOST):
        raise ValueError(f"{value!r} is not a URL: it names no host such as localhost")
    return value


def _printable(value: str) -> str:
    """A backslash in double quotes, as in a path of Windows, makes a control character."""
    if not value.isprintable():
        problem = f"{value!r} holds a character that nothing shows"
        raise Misplaced(problem, suggestion=r"a backslash in double quotes is written \\")
    return value


def matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


def _price(value: object) -> object:
    """As EC2 takes it: digits and a point. A number of TOML is as good as a string."""
    such = "a price in US dollars an hour such as 0.05"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {such}")
    text = f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    if PRICE.fullmatch(text) is None:
        raise ValueError(f"{value!r} is not {such}")
    if not LEAST_PRICE < Decimal(text) <= MOST_PRICE:
        raise ValueError(f"must be over {LEAST_PRICE} and at most {MOST_PRICE} US dollars an hour")
    return text


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    seen: set[T] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise Misplaced(f"{value!r} stands here twice", index)
        seen.add(value)
    return values


Whole = Annotated[int, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]
StepName = Annotated[
    str, matching(STEP_NAME, "a name of lower-case words joined by -, such as idle-stop")
]
SecretName = Annotated[str, matching(SECRET_NAME, "a name of lower-case words joined by _")]
InstanceType = Annotated[str, matching(INSTANCE_TYPE, "an instance type such as c7i.large")]
RegionName = Annotated[str, matching(REGION, "a region such as us-east-1")]
Printable = Annotated[str, AfterValidator(_printable)]
Price = Annotated[
    str,
    BeforeValidator(_price),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]
Once = AfterValidator(_without_repeats)
