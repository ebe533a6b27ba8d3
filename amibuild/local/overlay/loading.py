"""Brings moto in without its catalogues, and puts the overlay's classes in its place.

`import moto.ec2.models` takes 0.9 s, and 0.7 s of that are lists that a bake never looks at: every
region's endpoints, three times over, and every instance type's price sheet. Both are left out of
the import; instance types come back at the first launch (`machine_type`), regions never.
A moto that does these things differently is only slower to start, not wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# moto reads these once, when it is imported.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"

import moto.core.base_backend as moto_backends
import moto.utilities.utils as moto_files

# The regions of the partition `aws` (botocore 1.44, endpoints.json), and the others moto asks for.
_BY_CONTINENT = {
    "af": ["south-1"],
    "ap": [
        "east-1",
        "east-2",
        "northeast-1",
        "northeast-2",
        "northeast-3",
        "south-1",
        "south-2",
        "southeast-1",
        "southeast-2",
        "southeast-3",
        "southeast-4",
        "southeast-5",
        "southeast-6",
        "southeast-7",
    ],
    "ca": ["central-1", "west-1"],
    "eu": ["central-1", "central-2", "north-1", "south-1", "south-2", "west-1", "west-2", "west-3"],
    "il": ["central-1"],
    "me": ["central-1", "south-1"],
    "mx": ["central-1"],
    "sa": ["east-1"],
    "us": ["east-1", "east-2", "west-1", "west-2"],
}
_AWS = [f"{area}-{name}" for area, names in _BY_CONTINENT.items() for name in names]
REGIONS = {
    "aws": _AWS,
    "aws-us-gov": ["us-gov-east-1", "us-gov-west-1"],
    "aws-cn": ["cn-north-1", "cn-northwest-1"],
}


@contextmanager
def _without_catalogues() -> Iterator[None]:
    """While it lasts, botocore names our regions and moto's instance types are empty."""
    session = moto_backends.Session
    regions, resource = session.get_available_regions, moto_files.load_resource

    def known(_: Any, service: str, partition_name: str = "aws", **__: Any) -> list[str]:
        return list(REGIONS.get(partition_name, []))

    def light(path: str) -> Any:
        if path.endswith("ec2/resources/instance_types.json"):
            return {}
        if "instance_type_offerings" in path or path.endswith("ec2/resources/amis.json"):
            return []
        return resource(path)

    session.get_available_regions, moto_files.load_resource = known, light
    try:
        yield
    finally:
        session.get_available_regions, moto_files.load_resource = regions, resource


with _without_catalogues():
    import moto.ec2.models
    import moto.ssm.models  # noqa: F401  # reads moto.ec2, so it belongs inside


def _regions(_: Any, service: str) -> list[str]:
    return [region for partition in REGIONS.values() for region in partition]


# Every service's backends ask for their regions once, at 0.1 s and more each.
moto_backends.AccountSpecificBackend._generate_regions = _regions


@cache
def load_instance_types() -> None:
    """Fills in moto's instance types and where they are offered: 0.2 s, at the first need."""
    from moto.ec2.models import instance_types as catalogue

    catalogue.INSTANCE_TYPES.update(moto_files.load_resource("ec2/resources/instance_types.json"))
    catalogue.INSTANCE_FAMILIES[:] = {name.split(".")[0] for name in catalogue.INSTANCE_TYPES}
    catalogue.InstanceTypeBackend.instance_types[:] = map(
        catalogue.InstanceType, catalogue.INSTANCE_TYPES
    )
    for location_type, by_region in catalogue.INSTANCE_TYPE_OFFERINGS.items():
        for region in by_region:
            offers = moto_files.load_resource(
                f"ec2/{catalogue.offerings_path}/{location_type}/{region}.json"
            )
            by_region[region] = [{**offer, "LocationType": location_type} for offer in offers]
