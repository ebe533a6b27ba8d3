"""What amibuild made and gave an end by its tags: found, and its end moved on.

`reap` removes what is past its end; a bake that lives longer than that moves it on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from amibuild.aws.session import Cloud
from amibuild.journal import ResourceKind
from amibuild.names import BakeId, Tag


@dataclass(frozen=True)
class Temporary:
    kind: ResourceKind
    id: str
    tags: Mapping[str, str]


def find_temporary(cloud: Cloud) -> list[Temporary]:
    """All of the region that has both a bake's id and an end. A result has none: what is marked as
    verified and has one is of a bake that died between the two calls."""
    ec2, images = cloud.ec2, cloud.images
    unproven = images.search(owners=["self"], filters={"tag-key": [Tag.EXPIRES]})
    found: dict[ResourceKind, Mapping[str, Mapping[str, str]]] = {
        ResourceKind.INSTANCE: ec2.instances_with(Tag.EXPIRES),
        ResourceKind.VOLUME: ec2.volumes_with(Tag.EXPIRES),
        ResourceKind.IMAGE: {image.id: image.tags for image in unproven},
        ResourceKind.SNAPSHOT: images.snapshots_with(Tag.EXPIRES),
        ResourceKind.SECURITY_GROUP: ec2.security_groups_with(Tag.EXPIRES),
    }
    return [
        Temporary(kind, id_, tags)
        for kind, things in found.items()
        for id_, tags in things.items()
        if Tag.BAKE_ID in tags
    ]


def extend(cloud: Cloud, bake_id: BakeId, expires: str, but: Collection[ResourceKind] = ()) -> None:
    """Gives all that this bake has by now a later end, `but` not these kinds."""
    ids = [
        one.id
        for one in find_temporary(cloud)
        if one.tags[Tag.BAKE_ID] == bake_id and one.kind not in but
    ]
    if ids:
        cloud.images.tag(ids, {Tag.EXPIRES: expires})
