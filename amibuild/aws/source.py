"""Finds the image that a recipe starts from, once per bake: "latest" is never looked up twice."""

from __future__ import annotations

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.errors import NotFound, PlanError
from amibuild.plan import SourceImage
from amibuild.recipe.model import Source


def resolve_source(cloud: Cloud, source: Source) -> SourceImage:
    """Raises: PlanError when the recipe's source names nothing that can be used."""
    if source.ssm is not None:
        return _described(cloud, _from_parameter(cloud, source.ssm), source.ssm)
    if source.id is not None:
        return _described(cloud, source.id, source.id)
    assert source.filter is not None  # the recipe's model holds that one of the three is given
    found = cloud.images.search(
        owners=source.filter.owners,
        filters={"name": [source.filter.name], "state": ["available"]},
    )
    if not found:
        raise PlanError(
            f"source.filter: no image named {source.filter.name} "
            f"of {', '.join(source.filter.owners)} in {cloud.region}"
        )
    return _source(found[0], f"newest {source.filter.name}")


def _from_parameter(cloud: Cloud, name: str) -> str:
    try:
        return cloud.ssm.parameter(name)
    except NotFound as error:
        raise PlanError(f"source.ssm: there is no parameter {name} in {cloud.region}") from error


def _described(cloud: Cloud, image_id: str, reference: str) -> SourceImage:
    try:
        image = cloud.images.image(image_id)
    except NotFound as error:
        raise PlanError(f"source: there is no image {image_id} in {cloud.region}") from error
    if image.state != "available":
        raise PlanError(f"source: the image {image_id} is {image.state}, not available")
    return _source(image, reference)


def _source(image: Image, reference: str) -> SourceImage:
    return SourceImage(
        id=image.id,
        name=image.name,
        owner=image.owner,
        reference=reference,
        created=image.created,
        architecture=image.architecture,
        root_device=image.root_device,
        size_gib=image.size_gib,
    )
