"""`amibuild terraform`: writes what Terraform reads of one image, and a host to begin from.

amibuild never runs Terraform, and Terraform never needs amibuild: the files are all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild.aws.session import Cloud
from amibuild.bake import plan_bake
from amibuild.change import find_manifest
from amibuild.channels import find
from amibuild.errors import AwsError, UsageError
from amibuild.files import write_atomically
from amibuild.outputs import terraform
from amibuild.project import Project
from amibuild.recipe.model import Recipe
from amibuild.record import check_writable, write_pinned
from amibuild.registry import ImageFacts, list_images, pinned


@dataclass(frozen=True)
class Handed:
    """`written` was replaced, `kept` is the user's own and stayed as it is."""

    image: ImageFacts
    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def hand_image_over(project: Project, cloud: Cloud, reference: str | None) -> Handed:
    """Without a reference the newest image that is proven.

    Raises: UsageError when there is none, when it is not proven, or when nobody knows any longer
    what its services need.
    """
    check_writable(project)
    image = _proven(cloud, project.recipe, reference)
    services = _services(project, cloud, image)
    folder = project.directory / project.recipe.terraform.directory
    written = []
    for name, text in terraform.module().items():
        written.append(folder / terraform.MODULE / name)
        write_atomically(written[-1], text)
    # Last: until then what is there still fits together.
    tfvars = write_pinned(project, pinned(image), services)
    written += [folder / terraform.VARIABLES, tfvars]
    example = folder / terraform.EXAMPLE
    if example.exists() or example.is_symlink():
        return Handed(image, tuple(written), (example,))
    _write_folder(example, terraform.example())
    return Handed(image, (*written, *(example / name for name in terraform.example())), ())


def _proven(cloud: Cloud, recipe: Recipe, reference: str | None) -> ImageFacts:
    name = recipe.image.name
    if reference is not None:
        image = find(cloud, recipe, reference)
        if image.image != name:
            raise UsageError(f"{image.id} is an image of {image.image}, and the recipe's is {name}")
        if not _usable(image):
            raise UsageError(
                f"{image.id} ({image.name}) is not proven, or can't be launched",
                hint="amibuild images lists those that are verified and available",
            )
        return image
    found = next(filter(_usable, list_images(cloud, name)), None)
    if found is None:
        raise UsageError(
            f"there is no verified image of {name} in {cloud.region}",
            hint="amibuild bake makes one, and writes Terraform's variables for it",
        )
    return found


def _usable(image: ImageFacts) -> bool:
    return image.proven and image.state == "available" and image.revoked is None


def _services(project: Project, cloud: Cloud, image: ImageFacts) -> Mapping[str, dict[str, Any]]:
    """From the image's manifest; without one from the recipe, where it still makes this image."""
    bucket, failed = project.recipe.aws.bucket, ""
    try:
        manifest = find_manifest(cloud, project.state_dir, bucket, image)
    except AwsError as error:  # the recipe may still do
        manifest, failed = None, f" ({error.message})"
    if manifest is not None:
        return terraform.services_of_records(manifest.services)
    plan, _ = plan_bake(project, cloud)
    if plan.digest != image.digest:
        places = f"{project.state_dir} or s3://{bucket}" if bucket else f"{project.state_dir}"
        raise UsageError(
            f"what the services of {image.id} ({image.name}) need is not known: its manifest is "
            f"not in {places}{failed}, and the recipe makes another image by now",
            hint="run it where that image was baked, or bake",
        )
    return terraform.services_of_steps(plan.steps)


def _write_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """All of it or nothing: half an example would be taken for the user's own."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, text in texts.items():
            write_atomically(made / name, text)
        made.chmod(0o755)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
