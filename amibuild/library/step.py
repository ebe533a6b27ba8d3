"""A BuildStep: one thing that a bake runs on the builder, whole and ready to send.

Provisioners and services both compile to it, so that a bake, its digest, the manifest and the
runbook need to know one shape only. Pure data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any


class StepKind(StrEnum):
    PROVISIONER = "provisioner"
    SERVICE = "service"


@dataclass(frozen=True)
class StepFile:
    """A file that travels with a step. `path` is relative to the folder the script runs in.

    One with a `link` is a symbolic link to that; one that is the `same_as` another, which comes
    before it, is a second name of that file (a hard link). A `folder` is only one of these where
    its mode or owner was asked for: the others are made as they are needed, 0755. `owner` is
    USER:GROUP, by name as the machine knows it, and root:root where it is empty.
    """

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = ""
    link: str = ""
    same_as: str = ""
    folder: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_plain(self) -> bool:
        return not (self.link or self.same_as or self.folder)

    @property
    def identity(self) -> list[object]:
        """All of it, for a digest. That of a plain file of root's is as it was before there were
        others."""
        more = {
            "owner": self.owner, "link": self.link, "same-as": self.same_as, "folder": self.folder
        }  # fmt: skip
        asked = {key: value for key, value in more.items() if value}
        return [self.path, self.sha256, self.mode, *([asked] if asked else [])]


@dataclass(frozen=True)
class Source:
    """Where a file that the step needs comes from. Not what it is: `sha256` alone says that."""

    url: str
    name: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True)
class BuildStep:
    """Runs as `bash run.sh </dev/null` in a folder that holds `files`, with `environment` set.

    `checks` are pytest files that run on a fresh boot of the finished image, with `facts` (what
    the step says about itself, plain JSON) handed to them. Those that `builder_checks` names also
    run on the builder. `sources` say where its artifacts come from; what they are is in its files.
    `secrets` are names: the script reads each value from a file of that name in $AMIBUILD_SECRETS.
    One that `reboots` is over once the machine has booted again after it.
    """

    name: str
    kind: StepKind
    purpose: str
    script: str
    timeout_s: int
    files: tuple[StepFile, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[StepFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    builder_checks: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    reboots: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 over all that it brings to the image; checks and wording are not in it.

        Nor are the values of secrets, of which a hash would tell: a new one makes no new image.
        """
        body: dict[str, object] = {
            "name": self.name,
            "script": hashlib.sha256(self.script.encode()).hexdigest(),
            "files": sorted((f.identity for f in self.files), key=lambda one: str(one[0])),
            "environment": dict(sorted(self.environment.items())),
        }
        if self.secrets:
            body["secrets"] = sorted(self.secrets)
        if self.reboots:
            body["reboots"] = True
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
