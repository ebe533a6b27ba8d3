"""Files that no Debian package brings: `[artifact]`, `[[artifacts]]` and `[steam]`.

Services and provisioners share them. What makes the image is the checksum and how the file is
unpacked; where it comes from may change without the image being another, so the address is not in
the digest. On the machine every_service/artifacts.sh installs them, all or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from amibuild.library.step import BuildStep, Source, StepFile
from amibuild.recipe.section import Section
from amibuild.recipe.values import Switch, Whole

SHA256 = re.compile(r"[0-9a-f]{64}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_+@=-][A-Za-z0-9._+@=-]*")
BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Stands for a checksum that is not known yet: it can be planned with, and never be baked.
NOT_PINNED = "0" * 64
FOLDER = "artifacts"
SCRIPTS = ("artifacts.sh", "fetch.py", "unpack.py")
STEAM_SCRIPT = "steamcmd.sh"
CHECKS = "test_artifacts.py"


def shown(url: str) -> str:
    """The address as it may be told and written down: a query may hold a token.

    every_service/fetch.py, which is alone on the machine, has its own for what it fetches.
    """
    return re.split("[?#]", url, maxsplit=1)[0]


def bucket_and_key(url: str) -> tuple[str, str] | None:
    """Of an s3:// address; None for the others."""
    parts = urlsplit(url)
    return (parts.netloc, parts.path.lstrip("/")) if parts.scheme == "s3" else None


def pin_command(url: str) -> str:
    """What to call for its checksum. A query is left for the reader to put in."""
    return f"amibuild artifacts pin {shown(url)}" + ("?…" if shown(url) != url else "")


def _url(value: str) -> str:
    told = shown(value)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{told!r} is not an address: {error}") from None
    if any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError(f"{told!r} or its query holds white space; write it as %20")
    match parts.scheme:
        case "https" if parts.hostname and parts.path.strip("/"):
            if parts.username or parts.password:
                raise ValueError("must hold no user and password: use a mirror")
        case "s3" if BUCKET.fullmatch(parts.netloc) and parts.path.strip("/"):
            pass
        case "file" if not parts.netloc and parts.path.strip("/"):
            pass
        case "http":
            raise ValueError(f"{told!r} must be https")
        case _:
            raise ValueError(
                f"{told!r} is not https://HOST/PATH, s3://BUCKET/KEY, file:PATH or file:///PATH"
            )
    return value


def _into(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or not value.isprintable():
        raise ValueError(f"{value!r} is not a folder below the service's own, such as game")
    return value


def _branch(value: str) -> str:
    if BRANCH.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not the name of a branch, such as public")
    return value


class Artifact(Section):
    """A file, pinned by its checksum, that is fetched on the builder and installed."""

    model_config = ConfigDict(json_schema_extra={"required": ["url", "sha256"]})

    url: Annotated[str, AfterValidator(_url)] = Field(
        description="https://…, s3://BUCKET/KEY, or file:PATH beside the recipe."
    )
    sha256: str = Field(
        default="",
        validate_default=True,
        description="SHA-256 of the file; `amibuild artifacts pin URL` prints it. 64 zeros can be "
        "planned and not baked.",
    )
    size: Whole | None = Field(
        default=None, ge=1, description="Bytes: a wrong file is then refused before it has come."
    )
    into: Annotated[str, AfterValidator(_into)] = Field(
        default=".", description="Folder below {install} that it goes to."
    )
    strip: Whole = Field(
        default=0, ge=0, le=32, description="Leading folders of the archive to leave out."
    )
    unpack: Switch = Field(
        default=True, description="Unpack it; false for a plain file, which keeps its name."
    )

    @field_validator("sha256")
    @classmethod
    def _checksum(cls, value: str, info: ValidationInfo) -> str:
        command = f"`{pin_command(info.data.get('url', 'URL'))}` prints it"
        if not value:
            raise ValueError(f"is missing, and nothing is installed without a checksum; {command}")
        if SHA256.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not 64 digits of 0-9 and a-f; {command}")
        return value

    @field_validator("unpack")
    @classmethod
    def _plain_has_a_name(cls, value: bool, info: ValidationInfo) -> bool:
        url = info.data.get("url")
        if not value and url is not None and PLAIN_NAME.fullmatch(name_of(url)) is None:
            raise ValueError(f"the address ends in {name_of(url)!r}, which no file can be called")
        return value


def name_of(url: str) -> str:
    """The last word of its path."""
    return unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]


class Steam(Section):
    """A dedicated server that steamcmd brings, without an account."""

    app: Whole = Field(ge=1, description="Steam's number of the server's app.")
    branch: Annotated[str, AfterValidator(_branch)] = Field(
        default="public", description="Its branch, such as public or experimental."
    )


class HasArtifacts(Section):
    """What a service.toml and a provisioner.toml have in common."""

    artifact: Artifact | None = Field(default=None, description="A file that it is made of.")
    artifacts: tuple[Artifact, ...] = Field(
        default=(), description="Several of them, installed in this order."
    )

    @field_validator("artifacts")
    @classmethod
    def _not_both(cls, value: tuple[Artifact, ...], info: ValidationInfo) -> tuple[Artifact, ...]:
        if value and info.data.get("artifact") is not None:
            raise ValueError("stands here beside [artifact]: make that one of [[artifacts]] too")
        return value

    @property
    def all_artifacts(self) -> tuple[Artifact, ...]:
        return (self.artifact,) if self.artifact is not None else self.artifacts


class Brings(HasArtifacts):
    """What a service is made of, beside Debian packages."""

    steam: Steam | None = Field(default=None, description="A title that steamcmd brings.")

    @property
    def has_install(self) -> bool:
        """Whether there is an {install} folder."""
        return bool(self.all_artifacts) or self.steam is not None


@dataclass(frozen=True)
class Parts:
    """What artifacts add to a step; all empty without any."""

    files: tuple[StepFile, ...] = ()
    environment: Mapping[str, str] | None = None
    checks: tuple[StepFile, ...] = ()
    facts: Mapping[str, Any] | None = None
    sources: tuple[Source, ...] = ()


def artifact_parts(
    artifacts: tuple[Artifact, ...], steam: Steam | None = None, user: str = "", install: str = ""
) -> Parts:
    """`install` is where a service's are; a provisioner's run.sh says it to artifacts.sh itself."""
    if not artifacts and steam is None:
        return Parts()
    folder = files("amibuild.library").joinpath("every_service")
    scripts = (*SCRIPTS, STEAM_SCRIPT) if steam else SCRIPTS
    wanted = json.dumps([_how(artifact) for artifact in artifacts], indent=1) + "\n"
    checks = (StepFile(CHECKS, folder.joinpath(CHECKS).read_bytes()),) if install else ()
    facts = {
        **({"install": install} if install else {}),
        "artifacts": [a.sha256 for a in artifacts],
        "steam": steam.model_dump(mode="json") if steam else None,
    }
    return Parts(
        files=(
            *(StepFile(f"{FOLDER}/{s}", folder.joinpath(s).read_bytes()) for s in scripts),
            StepFile(f"{FOLDER}/artifacts.json", wanted.encode()),
        ),
        environment=(
            {"STEAM_APP": str(steam.app), "STEAM_BRANCH": steam.branch, "STEAM_USER": user}
            if steam
            else {}
        ),
        checks=checks,
        facts=facts,
        sources=tuple(Source(a.url, name_of(a.url), a.sha256, a.size) for a in artifacts),
    )


def _how(artifact: Artifact) -> dict[str, Any]:
    """What makes the image: the address is not in it, but for the name of a plain file."""
    how = artifact.model_dump(mode="json", include={"sha256", "into", "strip", "unpack"})
    return how if artifact.unpack else {**how, "name": name_of(artifact.url)}


def not_pinned(steps: tuple[BuildStep, ...]) -> Iterator[str]:
    """What stands in the way of a bake, by the step's name."""
    for step in steps:
        for source in step.sources:
            if source.sha256 == NOT_PINNED:
                yield (
                    f"{step.name}: the checksum of {shown(source.url)} is a placeholder; "
                    f"`{pin_command(source.url)}` prints the real one"
                )
