"""Decides, from data alone, what a bake would do and what its result is called by content.

Pure: the same project and source image give the same plan and digest, on every machine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from amibuild.errors import PlanError
from amibuild.library.step import BuildStep
from amibuild.project import Project

DIGEST_VERSION = 1


@dataclass(frozen=True)
class SourceImage:
    """The image that a bake starts from. `reference` is how the recipe named it."""

    id: str
    name: str
    owner: str
    reference: str
    created: datetime
    architecture: str
    root_device: str
    size_gib: int


@dataclass(frozen=True)
class Plan:
    image: str
    source: SourceImage
    steps: tuple[BuildStep, ...]
    volume_gib: int
    digest: str
    kms_key: str | None = None


def make_plan(project: Project, source: SourceImage) -> Plan:
    """Raises: PlanError when this source cannot be built on."""
    volume_gib = project.recipe.builder.volume_gib
    if source.size_gib > volume_gib:
        raise PlanError(
            f"the source image {source.id} needs {source.size_gib} GiB, "
            f"and builder.volume_gib is {volume_gib}",
            hint=f"set builder.volume_gib to {source.size_gib} or more",
        )
    if source.architecture != "x86_64":
        raise PlanError(f"the source image {source.id} is {source.architecture}; need x86_64")
    return Plan(
        image=project.recipe.image.name,
        source=source,
        steps=project.steps,
        volume_gib=volume_gib,
        digest=digest_of(source.id, project.steps, volume_gib, project.recipe.aws.kms_key),
        kms_key=project.recipe.aws.kms_key,
    )


def digest_of(
    source_ami: str, steps: tuple[BuildStep, ...], volume_gib: int, kms_key: str | None
) -> str:
    """SHA-256 over what makes the image. Publishing and channels are not in it.

    The key is, where one is named: a snapshot stays under the key that it was made with.
    """
    body: dict[str, object] = {
        "digest-version": DIGEST_VERSION,
        "source": source_ami,
        "steps": [step.digest for step in steps],
        "volume-gib": volume_gib,
    }
    if kms_key is not None:
        body["kms-key"] = kms_key
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
