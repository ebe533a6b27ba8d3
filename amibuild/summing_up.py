"""`bake --summary`: the manifests of an image and of the one before it, for outputs/summary.py."""

from __future__ import annotations

from amibuild.bake import BakeResult
from amibuild.errors import HostError
from amibuild.outputs.summary import summary, summary_of_reused
from amibuild.project import Project
from amibuild.record import last_manifest, manifest_of


def sum_up(project: Project, result: BakeResult, target: str) -> str:
    if result.reused:
        return summary_of_reused(result.image_name, result.image_id, result.region)
    made = manifest_of(project.state_dir, result.image_name, result.image_id)
    if made is None:
        raise HostError(f"{result.image_id} is proven and stays, but its manifest is gone")
    before = last_manifest(project.state_dir, made.image.image, target, before=made)
    return summary(made, before)
