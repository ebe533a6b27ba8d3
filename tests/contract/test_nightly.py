"""The nightly workflow's own words, run as its runner would, against the local target.

`run:` is taken from the YAML; steps that are actions of GitHub are not run, and `gh` is a stand-in
that writes down what it is asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from amibuild import proc
from amibuild.outputs.terraform import TFVARS
from tests.contract.builder import REPOSITORY, Answers
from tests.contract.conftest import KEY, REGION, Aws, Start
from tests.contract.place import RECIPE

WORKFLOWS = REPOSITORY / ".github" / "workflows"
GH = '#!/bin/sh\nprintf "%s\\n" "$*" >>"$GH_SAID"\n'


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return loaded


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job["steps"]
    return found


def command(name: str, job: str, word: str) -> str:
    """The `run:` of that job which has the word."""
    (found,) = [s["run"] for s in steps(workflow(name)["jobs"][job]) if word in s.get("run", "")]
    return str(found)


@dataclass
class Runner:
    """A checkout, and what a runner gives to a step."""

    folder: Path
    environment: dict[str, str]

    def run(self, script: str, *, check: bool = True, **more: str) -> proc.Finished:
        """As GitHub does (workflow syntax, `shell`): bash -e."""
        done = proc.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**self.environment, **more},
            check=False,
            timeout_s=300,
        )
        assert done.exit_code == 0 or not check, done.text + done.stderr.decode()
        return done

    def git(self, *words: str) -> str:
        return proc.run(["git", "-C", self.folder, *words]).text

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


def new_runner(aws: Aws, folder: Path) -> Runner:
    checkout, origin, tools = folder / "checkout", folder / "origin.git", folder / "tools"
    for made in (checkout / ".ci", tools):
        made.mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "nightly", checkout / ".ci")
    (checkout / "amibuild.toml").write_text(RECIPE)
    (checkout / ".gitignore").write_text((REPOSITORY / ".gitignore").read_text() + "/nightly/\n")
    (tools / "gh").write_text(GH)
    (tools / "gh").chmod(0o755)
    binaries = Path(sys.executable).parent
    runner = Runner(
        checkout,
        {
            "AWS_ACCESS_KEY_ID": KEY.id,
            "AWS_SECRET_ACCESS_KEY": KEY.secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": aws.service.url,
            "GH_SAID": str(folder / "gh-said"),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "HOME": str(folder),
            "PATH": os.pathsep.join([str(tools), str(binaries), os.environ["PATH"]]),
        },
    )
    proc.run(["git", "init", "--quiet", "--bare", origin])
    runner.git("init", "--quiet", "--initial-branch=main")
    runner.git("remote", "add", "origin", str(origin))
    runner.git("add", ".")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    runner.git(*identity, "commit", "--quiet", "-m", "recipe")
    return runner


def test_a_night_bakes_offers_what_it_wrote_and_reuses_it_the_next(
    start: Start, tmp_path: Path
) -> None:
    aws = start(script=Answers())
    runner = new_runner(aws, tmp_path)
    bake = command("nightly-bake", "bake", "bake")
    runner.run(bake)
    baked = json.loads(runner.read("nightly/bake.json"))
    image = baked["image"]["id"]
    assert (tmp_path / "output").read_text() == f"image={image}\n"
    assert f"`{image}` in us-east-1" in (tmp_path / "summary").read_text()
    assert ET.parse(runner.folder / "nightly" / "junit.xml").getroot().get("failures") == "0"

    # The pull request is made on another machine, from what was handed over.
    for name in ("RUNBOOK.md", "terraform"):
        path = runner.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    runner.run(command("nightly-bake", "propose", "propose"))
    assert runner.git("ls-tree", "-r", "--name-only", "origin/amibuild/nightly").split() == [
        ".ci/nightly",
        ".gitignore",
        "RUNBOOK.md",
        "amibuild.toml",
        f"terraform/{TFVARS}",
        "terraform/amibuild_variables.tf",
    ]
    said = (tmp_path / "gh-said").read_text()
    assert f"pr create --head amibuild/nightly --title image: {baked['image']['name']}" in said

    move = command("nightly-bake", "promote", "promote")
    runner.run(move, IMAGE=image, CHANNEL="nightly", REASON="nightly bake, run 7")
    found = aws.ssm.get_parameter(Name="/amibuild/game-host/nightly/ami-id")["Parameter"]
    assert found["Value"] == image

    runner.run(bake)
    assert json.loads(runner.read("nightly/bake.json"))["reused"] is True
    assert "Nothing has changed" in (tmp_path / "summary").read_text()
    assert "nothing to offer" in runner.run(command("nightly-bake", "propose", "propose")).text


def test_a_bake_that_fails_says_so_on_the_page_and_reap_finds_nothing(
    start: Start, tmp_path: Path
) -> None:
    runner = new_runner(start(script=Answers(exit_codes={"os": 1})), tmp_path)
    done = runner.run(command("nightly-bake", "bake", "bake"), check=False)
    assert done.exit_code == 1
    summary = (tmp_path / "summary").read_text()
    assert summary.startswith("## The bake failed")
    assert '"kind": "StepFailed"' in summary
    assert not (tmp_path / "output").exists()
    runner.run(command("nightly-bake", "reap", "reap"))


@pytest.mark.parametrize("name", ["nightly-bake", "promote"])
def test_a_workflow_has_no_right_that_it_does_not_need(name: str) -> None:
    read = workflow(name)
    assert read["permissions"] == {}
    assert read["concurrency"]["cancel-in-progress"] is False
    for job in read["jobs"].values():
        assert "timeout-minutes" in job
        roles = [s for s in steps(job) if "configure-aws" in s.get("uses", "")]
        assert ("id-token" in job["permissions"]) == bool(roles)
        assert (job["permissions"]["contents"] == "write") == (
            "pull-requests" in job["permissions"]
        )
        for step in steps(job):
            assert "${{" not in step.get("run", ""), "a value would be taken for shell"


def test_reap_runs_whatever_became_of_the_bake_and_people_approve_a_promotion() -> None:
    assert workflow("nightly-bake")["jobs"]["reap"]["if"] == "always()"
    assert workflow("promote")["jobs"]["promote"]["environment"] == "${{ inputs.channel }}"
