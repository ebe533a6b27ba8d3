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
from typing import Any


class StepKind(StrEnum):
    PROVISIONER = "provisioner"
    SERVICE = "service"


@dataclass(frozen=True)
class StepFile:
    """A file that travels with a step. `path` is relative to the folder the script runs in."""

    path: str
    content: bytes
    mode: int = 0o644

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


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
            "files": sorted([f.path, f.sha256, f.mode] for f in self.files),
            "environment": dict(sorted(self.environment.items())),
        }
        if self.secrets:
            body["secrets"] = sorted(self.secrets)
        if self.reboots:
            body["reboots"] = True
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
