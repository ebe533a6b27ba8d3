"""GitHub's workflows of this repository, and runners for their `run:` steps: each job in a checkout
of its own, as GitHub has it. Steps that are actions are not run, and `gh` is a stand-in that writes
down what it is asked for, and knows the pull requests that a test says.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from amibuild import proc
from tests.contract.builder import REPOSITORY
from tests.contract.conftest import KEY, REGION, Aws
from tests.contract.place import RECIPE

WORKFLOWS = REPOSITORY / ".github" / "workflows"
GH = """#!/bin/sh
printf "%s\\n" "$*" >>"$RUNNER_TEMP/gh-said"
[ "$1 $2" != "pr list" ] || cat "$RUNNER_TEMP/gh-open"
"""
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.org")


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return loaded


def job(name: str, job: str) -> dict[str, Any]:
    found: dict[str, Any] = workflow(name)["jobs"][job]
    return found


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job["steps"]
    return found


def command(name: str, job_name: str, word: str) -> str:
    """The `run:` of that job which has the word."""
    (found,) = [s["run"] for s in steps(job(name, job_name)) if s.get("run", "").endswith(word)]
    return str(found)


@dataclass(frozen=True)
class Runner:
    """A checkout, and what a runner gives to a step."""

    folder: Path
    environment: dict[str, str]

    def run(
        self, script: str, more: Mapping[str, str] | None = None, *, check: bool = True
    ) -> proc.Finished:
        """As GitHub does (workflow syntax, `shell`): bash -e."""
        done = proc.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**self.environment, **(more or {})},
            check=False,
            timeout_s=300,
        )
        assert done.exit_code == 0 or not check, done.text + done.stderr.decode()
        return done

    def git(self, *words: str) -> str:
        return proc.run(["git", "-C", self.folder, *words]).text

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def outputs(self) -> dict[str, str]:
        path = Path(self.environment["GITHUB_OUTPUT"])
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.split("=", 1) for line in lines)

    @property
    def summary(self) -> str:
        return Path(self.environment["GITHUB_STEP_SUMMARY"]).read_text()

    def stand_in(self, program: str, script: str) -> None:
        """In place of what `install` would have put there."""
        path = self.folder / ".venv" / "bin" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@dataclass(frozen=True)
class Site:
    """A repository at GitHub, with the recipe on its main branch."""

    folder: Path
    url: str

    def runner(self, name: str, kept: Runner | None = None, *paths: str) -> Runner:
        """For one job, which has nothing of others but what an action brings: `paths` of `kept`."""
        place = self.folder / name
        checkout = place / "checkout"
        place.mkdir()
        proc.run(["git", "clone", "--quiet", "--branch=main", self.origin, checkout])
        for path in paths if kept else ():
            assert kept is not None
            shutil.copytree(kept.folder / path, checkout / path)
        tools = Path(sys.executable).parent
        environment = {
            "AWS_ACCESS_KEY_ID": KEY.id,
            "AWS_SECRET_ACCESS_KEY": KEY.secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "GITHUB_ACTOR": "octocat",
            "GITHUB_OUTPUT": str(place / "output"),
            "GITHUB_RUN_ID": "7",
            "GITHUB_STEP_SUMMARY": str(place / "summary"),
            "HOME": str(place),
            "PATH": os.pathsep.join([str(self.folder / "tools"), str(tools), os.environ["PATH"]]),
            "RUNNER_TEMP": str(self.folder),
        }
        return Runner(checkout, environment)

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    def push(self, recipe: str) -> None:
        """Another recipe on the main branch."""
        seed = self.folder / "seed"
        (seed / "amibuild.toml").write_text(recipe)
        proc.run(["git", "-C", seed, "add", "."])
        proc.run(["git", "-C", seed, *IDENTITY, "commit", "--quiet", "-m", "recipe"])
        proc.run(["git", "-C", seed, "push", "--quiet", self.origin, "main"])

    def branch(self, name: str) -> str:
        """Its commit."""
        return proc.run(["git", "-C", self.origin, "rev-parse", name]).text.strip()

    def file(self, branch: str, path: str) -> str:
        return proc.run(["git", "-C", self.origin, "show", f"{branch}:{path}"]).text

    def opened(self, *pulls: tuple[int, bool]) -> None:
        """The pull requests that are open from the branch's name: number, and whether a fork's."""
        found = [{"number": number, "isCrossRepository": fork} for number, fork in pulls]
        (self.folder / "gh-open").write_text(json.dumps(found))

    @property
    def gh_said(self) -> list[str]:
        return (self.folder / "gh-said").read_text().splitlines()


def new_site(aws: Aws, folder: Path, recipe: str = RECIPE) -> Site:
    site = Site(folder / "site", aws.service.url)
    seed, tools = site.folder / "seed", site.folder / "tools"
    for made in (seed / ".ci", tools):
        made.mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "nightly", seed / ".ci")
    shutil.copy(REPOSITORY / ".gitignore", seed)
    (tools / "gh").write_text(GH)
    (tools / "gh").chmod(0o755)
    site.opened()
    proc.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", site.origin])
    proc.run(["git", "-C", seed, "init", "--quiet", "--initial-branch=main"])
    site.push(recipe)
    return site
