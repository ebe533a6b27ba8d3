"""Which part of AWS a region is in, by what botocore knows. No call is made."""

from __future__ import annotations

from botocore.exceptions import UnknownRegionError
from botocore.loaders import Loader
from botocore.regions import EndpointResolver

from amibuild.errors import UsageError
from amibuild.names import Partition


def partition_of(region: str) -> Partition:
    """Also of a region that is newer than botocore, when its name is like the others of one.

    Raises: UsageError.
    """
    known = EndpointResolver(Loader().load_data("endpoints"))
    try:
        name = known.get_partition_for_region(region)
    except UnknownRegionError as error:
        raise UsageError(
            f"aws.region: no part of AWS has regions like {region}", hint="such as us-east-1"
        ) from error
    return Partition(name, known.get_partition_dns_suffix(name))
