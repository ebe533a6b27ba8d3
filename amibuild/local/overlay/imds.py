"""The options of an instance's metadata service: what a launch or a change may ask for.

Sources: EC2 API reference, InstanceMetadataOptionsRequest and ModifyInstanceMetadataOptions
(HttpTokens optional or required, a hop limit of 1 to 64, the others enabled or disabled); user
guide, "Configure the AMI" (ImdsSupport v2.0 makes tokens required and the hop limit 2) and "View
tags using instance metadata" (which keys can be shown).
"""

from __future__ import annotations

import re
from typing import Any

from amibuild.local.overlay.desk import Refusal

_SWITCH = ("disabled", "enabled")
VALUES = {
    "HttpTokens": ("optional", "required"),
    "HttpEndpoint": _SWITCH,
    "HttpProtocolIpv6": _SWITCH,
    "InstanceMetadataTags": _SWITCH,
}
HOP_LIMIT = "HttpPutResponseHopLimit"
HOPS = range(1, 65)
_SHOWN_KEY = re.compile(r"[0-9a-zA-Z\-_+=,.@:]{1,255}")
_RESERVED_KEYS = {".", "..", "_index"}


def check_options(options: dict[str, Any]) -> None:
    """Raises: Refusal for a value that EC2 does not have."""
    for name, allowed in VALUES.items():
        value = options.get(name)
        if value is not None and value not in allowed:
            raise Refusal(
                "InvalidParameterValue",
                f"Value ({value}) for parameter {name} is invalid. Valid values: "
                f"{', '.join(allowed)}.",
            )
    hops = options.get(HOP_LIMIT)
    if hops is not None and int(hops) not in HOPS:
        raise Refusal(
            "InvalidParameterValue",
            f"Value ({hops}) for parameter {HOP_LIMIT} is invalid. It must be from {HOPS[0]} to "
            f"{HOPS[-1]}.",
        )


def check_shown_tags(options: dict[str, Any], keys: list[str]) -> None:
    """Raises: Refusal when tags shall be shown and a key can't be part of a path."""
    if options.get("InstanceMetadataTags") != "enabled":
        return
    for key in keys:
        if key in _RESERVED_KEYS or not _SHOWN_KEY.fullmatch(key):
            raise Refusal(
                "InvalidParameterValue",
                f"'{key}' is not a valid tag key. Tag keys must match pattern "
                f"({_SHOWN_KEY.pattern}), and must not be a reserved name ('.', '..', '_index')",
            )


def at_launch(asked: dict[str, Any], imds_support: str | None) -> dict[str, Any]:
    """What a launch asks for, and what its image wants where it asks nothing."""
    options = dict(asked)
    if imds_support == "v2.0":
        options.setdefault("HttpTokens", "required")
        options.setdefault(HOP_LIMIT, 2)
    return options


def change(options: Any, asked: dict[str, Any]) -> None:
    """moto resets what a change leaves out; EC2 keeps it."""
    for name, attribute in (
        ("HttpTokens", "http_tokens"),
        ("HttpEndpoint", "http_endpoint"),
        ("HttpProtocolIpv6", "http_protocol_ipv6"),
        ("InstanceMetadataTags", "instance_metadata_tags"),
    ):
        if asked.get(name) is not None:
            setattr(options, attribute, asked[name])
    if asked.get(HOP_LIMIT) is not None:
        options.http_put_response_hop_limit = int(asked[HOP_LIMIT])
