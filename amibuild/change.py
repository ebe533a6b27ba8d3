"""What a move of a channel changes, for who has to say yes: packages, services, age and checks.

From the manifests of both images, which are in this folder or, as copies, in the recipe's bucket.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.errors import AwsError, RecipeError
from amibuild.outputs.difference import Difference, difference
from amibuild.outputs.manifest import Manifest, from_json
from amibuild.record import manifest_of
from amibuild.registry import ImageFacts


@dataclass(frozen=True)
class Checks:
    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        told = {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}
        return ", ".join(f"{n} {what}" for what, n in told.items() if n) or "none"


@dataclass(frozen=True)
class Change:
    """`difference` is None where a manifest is missing; `notes` say which, and why.

    `before` is None for a channel's first image, and where the image that it had is gone.
    """

    before: ImageFacts | None
    after: ImageFacts
    difference: Difference | None
    checks: Checks | None
    notes: tuple[str, ...]


def change_between(
    cloud: Cloud,
    state_dir: Path,
    bucket: str | None,
    before: ImageFacts | None,
    after: ImageFacts,
) -> Change:
    notes: list[str] = []
    new = _manifest(cloud, state_dir, bucket, after, notes)
    old = _manifest(cloud, state_dir, bucket, before, notes) if before else None
    return Change(
        before=before,
        after=after,
        difference=difference(old, new) if old and new else None,
        checks=_checks(new) if new else None,
        notes=tuple(notes),
    )


def _manifest(
    cloud: Cloud, state_dir: Path, bucket: str | None, image: ImageFacts, notes: list[str]
) -> Manifest | None:
    """Its manifest; None with a note. Nobody has to have one to move a channel."""
    try:
        found = find_manifest(cloud, state_dir, bucket, image)
    except (AwsError, RecipeError) as error:
        notes.append(f"the manifest of {image.id} can't be read: {error.message}")
        return None
    if found is None:
        places = f"{state_dir} or s3://{bucket}" if bucket else f"{state_dir}"
        notes.append(f"no manifest of {image.id} in {places}: it was baked elsewhere")
    return found


def find_manifest(
    cloud: Cloud, state_dir: Path, bucket: str | None, image: ImageFacts
) -> Manifest | None:
    """In this folder or, where the recipe has one, in the bucket. Raises: AwsError, RecipeError."""
    found = manifest_of(state_dir, image.name, image.id)
    return _copy(cloud, bucket, image) if found is None and bucket is not None else found


def _copy(cloud: Cloud, bucket: str, image: ImageFacts) -> Manifest | None:
    """As a bake with this bucket has put it there. Another target's may have the same name."""
    key = manifest_key(image.name)
    # Asked first: who may not list the bucket is "denied" what is not there (GetObject).
    if not cloud.s3.exists(bucket, key):
        return None
    with tempfile.TemporaryDirectory(prefix="amibuild-") as folder:
        path = Path(folder) / f"{image.name}.json"
        cloud.s3.get_file(bucket, key, path)
        found = from_json(path.read_text(errors="replace"), path)
    return found if found.image.id == image.id else None


def manifest_key(name: str) -> str:
    """Where bake puts the copy of a manifest."""
    return f"amibuild/manifests/{name}.json"


def _checks(manifest: Manifest) -> Checks:
    outcomes = [check.outcome for check in manifest.checks]
    return Checks(
        passed=outcomes.count("passed"),
        failed=outcomes.count("failed") + outcomes.count("error"),
        skipped=outcomes.count("skipped"),
    )
