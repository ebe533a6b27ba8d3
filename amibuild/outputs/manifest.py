"""The manifest: everything that a bake did and found, as one JSON document with a schema.

The last word of a bake. RUNBOOK.md and Terraform's files are written from manifests alone, so
what is not in here did not happen.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from amibuild.errors import Problem, RecipeError
from amibuild.library.artifact import shown
from amibuild.library.step import BuildStep, StepFile
from amibuild.library.step import Source as BuildSource
from amibuild.names import ON_BUILDER
from amibuild.outputs.hardening_record import HardeningRecord
from amibuild.outputs.service_record import ServiceRecord

# Beyond this a file is named by its hash alone: the manifest stays something that one can open.
LARGEST_CONTENT = 64 * 1024


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Record):
    """The result."""

    id: str = Field(description="AMI id")
    name: str = Field(description="AMI name: image name and version")
    image: str = Field(description="[image] name of the recipe")
    version: str = Field(description="UTC date and a counter")
    region: str = Field(description="Where it was captured")
    size_gib: int = Field(description="Size of the root volume, GiB")
    architecture: str = Field(default="x86_64", description="EC2's word for it")
    snapshot_ids: tuple[str, ...] = Field(default=(), description="Snapshots of its volumes")


class Bake(_Record):
    """The run that made it."""

    id: str = Field(description="Bake id; journal and logs carry it")
    started: AwareDatetime = Field(description="UTC")
    ended: AwareDatetime = Field(description="UTC, when the image was proven")
    target: str = Field(description="local or aws")
    user: str = Field(description="Who ran it")
    host: str = Field(description="Where it ran")
    amibuild_version: str = Field(description="Version of amibuild")


class RecipeSource(_Record):
    """Where the recipe came from."""

    name: str = Field(description="[image] name of the recipe")
    path: str = Field(description="The recipe's file, relative to its folder")
    commit: str | None = Field(
        default=None, description="git commit of that folder, '-dirty' added when it had changes"
    )


class Boot(_Record):
    """How long a machine's boot took in userspace, and what kind of machine it was."""

    seconds: float = Field(ge=0, description="From systemd's start until the last unit was up")
    machine: str = Field(description="What systemd-detect-virt calls it: amazon, qemu, …")


class Source(_Record):
    """The image that the builder started from."""

    ami_id: str = Field(description="AMI id, resolved once")
    name: str = Field(description="AMI name")
    owner: str = Field(description="Account that owns it")
    reference: str = Field(description="How the recipe names it: parameter, id or filter")
    boot: Boot | None = Field(default=None, description="As the builder, before any change to it")


class File(_Record):
    """A file that travelled with a step. Contents above 64 KiB are named by their hash alone."""

    path: str = Field(description="Relative to the folder that the script ran in")
    sha256: str = Field(description="Of the content, hexadecimal")
    mode: int = Field(description="Permission bits")
    size: int = Field(description="Bytes")
    owner: str = Field(default="", description="USER:GROUP, where others than root:root")
    link: str = Field(default="", description="What it points to, if it is a symbolic link")
    same_as: str = Field(default="", description="The first name of the file, if it is a hard link")
    folder: bool = Field(default=False, description="It is a folder whose mode was asked for")
    content: str | None = Field(default=None, description="When it is UTF-8")
    content_base64: str | None = Field(default=None, description="When it is not")

    @property
    def identity(self) -> str:
        """What makes it another one under the same path."""
        return repr((self.sha256, self.mode, self.owner, self.link, self.same_as, self.folder))

    def read(self) -> bytes | None:
        """The content; None when it was too large to keep."""
        if self.content is not None:
            return self.content.encode()
        if self.content_base64 is not None:
            return base64.b64decode(self.content_base64)
        return None


class Kind(StrEnum):
    """What a step is. `seal` is the last, and takes out what must not be in an image."""

    PROVISIONER = "provisioner"
    SERVICE = "service"
    SEAL = "seal"


class Artifact(_Record):
    """Where a file that the step needed comes from. It is not kept here, for it may be large."""

    name: str = Field(description="Its file name")
    url: str = Field(description="As in the recipe: https, s3 or file; without its query")
    has_query: bool = Field(
        default=False, description="Its address has a query: not kept, since it may hold a token"
    )
    sha256: str = Field(description="Of the content, hexadecimal")


class Step(_Record):
    """One script that ran on the builder, as it ran; secrets are masked."""

    name: str = Field(description="Unique in the bake")
    kind: Kind = Field(description="What it was made from")
    purpose: str = Field(description="What it is for, in a sentence")
    script: str = Field(description="run.sh")
    environment: dict[str, str] = Field(default={}, description="Its parameters")
    files: tuple[File, ...] = Field(default=(), description="What travelled with it")
    artifacts: tuple[Artifact, ...] = Field(default=(), description="What it fetched besides")
    secrets: tuple[str, ...] = Field(
        default=(), description="Names of the secrets that it read; their values are nowhere"
    )
    exit_code: int = Field(description="Of the script")
    seconds: float = Field(description="How long the script took")
    digest: str = Field(description="SHA-256 over all that it brings to the image")
    log: str = Field(description="File with its full output, relative to the recipe's folder")
    notes: tuple[str, ...] = Field(
        default=(), description="What it declared, such as something that is absent, and why"
    )


class Waived(_Record):
    """What would have failed, had the recipe not said that everybody has it."""

    rule: str = Field(description="What was looked for")
    path: str = Field(description="The file that holds it")
    detail: str = Field(description="What it is, and where on the disk")


class Hygiene(_Record):
    """What was looked for on the finished disk, where nothing runs that could hide it."""

    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    waived: tuple[Waived, ...] = Field(
        default=(), description="Private keys that params.seal.known_public calls public"
    )


class Check(_Record):
    """One check that ran on a machine booted from the image."""

    name: str = Field(description="File and test")
    outcome: Literal["passed", "failed", "error", "skipped"]
    seconds: float
    message: str = Field(default="", description="Why, when it did not pass")


class Seconds(_Record):
    total: float = Field(description="From the start until the image was proven")
    steps: dict[str, float] = Field(default={}, description="Phases of the bake, in order")


class Manifest(_Record):
    """What `.amibuild/manifests/<AMI name>.json` holds."""

    schema_version: Literal[1] = 1
    image: Image
    digest: str = Field(description="SHA-256 over what makes the image; equal digest, equal image")
    bake: Bake
    recipe: RecipeSource
    source: Source
    steps: tuple[Step, ...] = Field(description="In the order they ran; seal is the last")
    packages: dict[str, str] = Field(default={}, description="Debian package -> version")
    platform_packages: tuple[str, ...] = Field(
        default=(), description="Packages that are there for the target, not for the recipe"
    )
    services: dict[str, ServiceRecord] = Field(
        default={}, description="Service -> its facts, and what was measured of it"
    )
    units_enabled: tuple[str, ...] = Field(default=(), description="systemd units that start")
    users: tuple[str, ...] = Field(default=(), description="Names in /etc/passwd")
    hygiene: Hygiene = Hygiene()
    checks: tuple[Check, ...] = ()
    boot: Boot | None = Field(default=None, description="The fresh boot that was checked")
    hardening: HardeningRecord | None = Field(
        default=None, description="How it was judged as a whole, where it was"
    )
    seconds: Seconds
    sizes: dict[str, int] = Field(
        default={}, description="Bytes: root_used_bytes, bundle_bytes and the like"
    )

    @property
    def fresh_checks(self) -> tuple[Check, ...]:
        """Those that ran on a fresh boot, not on the builder."""
        ran = (c for c in self.checks if c.outcome != "skipped")
        return tuple(c for c in ran if not c.name.endswith(ON_BUILDER))

    @property
    def verified(self) -> bool:
        """True when it passed on a fresh boot: some checks ran and none failed."""
        ran = [c for c in self.checks if c.outcome != "skipped"]
        return bool(ran) and all(c.outcome == "passed" for c in ran) and not self.hygiene.failed


def file_record(file: StepFile) -> File:
    facts = File(
        path=file.path,
        sha256=file.sha256,
        mode=file.mode,
        size=len(file.content),
        owner=file.owner,
        link=file.link,
        same_as=file.same_as,
        folder=file.folder,
    )
    if len(file.content) > LARGEST_CONTENT:
        return facts
    try:
        return facts.model_copy(update={"content": file.content.decode()})
    except UnicodeDecodeError:
        encoded = base64.b64encode(file.content).decode()
        return facts.model_copy(update={"content_base64": encoded})


def _artifact_record(source: BuildSource) -> Artifact:
    told = shown(source.url)
    return Artifact(name=source.name, url=told, has_query=told != source.url, sha256=source.sha256)


def step_record(
    step: BuildStep,
    *,
    exit_code: int,
    seconds: float,
    log: str,
    kind: Kind | None = None,
    notes: Iterable[str] = (),
) -> Step:
    """What ran and how it went."""
    return Step(
        name=step.name,
        kind=kind or Kind(step.kind.value),
        purpose=step.purpose,
        script=step.script,
        environment=dict(sorted(step.environment.items())),
        files=tuple(file_record(f) for f in sorted(step.files, key=lambda f: f.path)),
        artifacts=tuple(map(_artifact_record, step.sources)),
        secrets=step.secrets,
        exit_code=exit_code,
        seconds=round(seconds, 3),
        digest=step.digest,
        log=log,
        notes=tuple(notes),
    )


def build_manifest(
    *,
    image: Image,
    digest: str,
    bake: Bake,
    recipe: RecipeSource,
    source: Source,
    steps: Iterable[Step],
    packages: Mapping[str, str],
    platform_packages: Iterable[str],
    services: Mapping[str, ServiceRecord],
    units_enabled: Iterable[str],
    users: Iterable[str],
    hygiene: Hygiene,
    checks: Iterable[Check],
    boot: Boot | None = None,
    hardening: HardeningRecord | None = None,
    seconds: Seconds,
    sizes: Mapping[str, int],
) -> Manifest:
    """A manifest in its one order, so that two of the same image compare line by line.

    Steps and phases stay in the order they happened; everything else is sorted.
    """
    return Manifest(
        image=image,
        digest=digest,
        bake=bake,
        recipe=recipe,
        source=source,
        steps=tuple(steps),
        packages=dict(sorted(packages.items())),
        platform_packages=tuple(sorted(platform_packages)),
        services=dict(sorted(services.items())),
        units_enabled=tuple(sorted(units_enabled)),
        users=tuple(sorted(users)),
        hygiene=hygiene,
        checks=tuple(checks),
        boot=boot,
        hardening=hardening,
        seconds=seconds,
        sizes=dict(sorted(sizes.items())),
    )


def to_json(manifest: Manifest) -> str:
    """The text of the file: indented, with a newline at the end."""
    return manifest.model_dump_json(indent=2) + "\n"


def from_json(text: str, path: Path) -> Manifest:
    """Raises: RecipeError that names `path` and every wrong key."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise RecipeError([_problem(path, detail) for detail in error.errors()]) from error


def _problem(path: Path, detail: Any) -> Problem:
    key = ".".join(str(part) for part in detail["loc"])
    suggestion = None
    if key == "schema_version":
        suggestion = "it was written by another version of amibuild: use that, or remove the file"
    return Problem(path, None, key, str(detail["msg"]), suggestion)


def newest_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    """By when the bake ended: the order of the runbook's history."""
    return sorted(manifests, key=lambda m: (m.bake.ended, m.image.name), reverse=True)


def schema() -> dict[str, Any]:
    """The JSON Schema, as `amibuild schema --manifest` prints it."""
    loaded: dict[str, Any] = json.loads(json.dumps(Manifest.model_json_schema()))
    loaded["title"] = "amibuild manifest"
    return loaded
