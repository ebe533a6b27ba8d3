"""Terraform itself, with its AWS provider from a folder and the local endpoint for AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild import proc
from tests.local.clients import MIRRORS, PATH, program, terraform_mirror


def problem() -> str | None:
    """What is missing; None when both are here."""
    no_mirror = None if terraform_mirror() else f"its AWS provider is in none of {MIRRORS}"
    return program("terraform") or no_mirror


def environment(folder: Path, account: Mapping[str, str]) -> dict[str, str]:
    """For Terraform that keeps its things in `folder`; `account` leads to the endpoint."""
    config = folder / "config.tfrc"
    path = json.dumps(str(terraform_mirror()))
    config.write_text(
        f"provider_installation {{\n  filesystem_mirror {{\n    path = {path}\n  }}\n}}\n"
    )
    (folder / "plugins").mkdir()
    return {
        **account,
        "CHECKPOINT_DISABLE": "1",
        "HOME": str(folder),
        "PATH": PATH,
        "TF_CLI_CONFIG_FILE": str(config),
        "TF_CLI_ARGS": "-no-color",
        # One copy of its 600 MB for all folders.
        "TF_PLUGIN_CACHE_DIR": str(folder / "plugins"),
    }


@dataclass
class Terraform:
    """Terraform in the folder of a root configuration."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, folder: Path | None = None) -> str:
        done = proc.run(
            ["terraform", *words],
            cwd=folder or self.folder,
            env=self.environment,
            check=False,
            timeout_s=600,
        )
        assert done.exit_code == 0, done.text + done.stderr.decode()
        return done.text

    def changes(self, *words: str) -> dict[str, dict[str, Any]]:
        """Address -> what a plan, which is kept as `planned`, would change there; what it leaves
        alone is not in it."""
        self.run("plan", "-input=false", "-out=planned", *words)
        return changes_in(json.loads(self.run("show", "-json", "planned")))


def changes_in(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        one["address"]: one["change"]
        for one in shown["resource_changes"]
        if one["change"]["actions"] not in (["no-op"], ["read"])
    }
