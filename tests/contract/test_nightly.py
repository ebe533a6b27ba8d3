"""The workflows' own words, run as their runners would, against the local target.

`run:` is taken from the YAML; each job has a fresh checkout, and of other jobs what the workflow's
actions bring it.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from amibuild.outputs.terraform import TFVARS
from tests.contract.builder import Answers
from tests.contract.conftest import Aws, Start
from tests.contract.place import RECIPE
from tests.contract.promoted import Stage
from tests.contract.workflows import Runner, Site, command, job, new_site, steps, workflow

BRANCH = "amibuild/nightly"
BAKE = command("nightly-bake", "bake", "bake")
PROPOSE = command("nightly-bake", "propose", "propose")
PROMOTE = command("nightly-bake", "promote", "promote")
REAP = command("nightly-bake", "reap", "reap")
LOOK = command("promote", "look", "look")
MOVE = command("promote", "promote", "move")
CACHED = ".amibuild/manifests"
NIGHTLY = {"CHANNEL": "nightly"}


def night(site: Site, name: str, before: Runner | None = None) -> Runner:
    """The job that bakes, with what the last one's has saved."""
    runner = site.runner(name, before, CACHED)
    runner.run(BAKE)
    return runner


def name_of(baked: Runner) -> str:
    return str(json.loads(baked.read("nightly/bake.json"))["image"]["name"])


def points_at(aws: Aws, channel: str) -> str:
    name = f"/amibuild/game-host/{channel}/ami-id"
    return aws.ssm.get_parameter(Name=name)["Parameter"]["Value"]


def test_nights_bake_offer_what_is_new_and_leave_the_offer_alone_when_nothing_is(
    start: Start, tmp_path: Path
) -> None:
    aws = start(script=Answers())
    site = new_site(aws, tmp_path)
    first = night(site, "first")
    image = first.outputs["image"]
    assert first.outputs["new"] == "true"
    assert f"`{image}` in us-east-1" in first.summary
    assert ET.parse(first.folder / "nightly" / "junit.xml").getroot().get("failures") == "0"

    site.runner("first-propose", first, "nightly").run(PROPOSE)
    listed = site.runner("look").git("ls-tree", "-r", "--name-only", f"origin/{BRANCH}")
    assert listed.split() == [
        ".ci/nightly",
        ".gitignore",
        "RUNBOOK.md",
        "amibuild.toml",
        f"terraform/{TFVARS}",
        "terraform/amibuild_variables.tf",
    ]
    created = f"pr create --head {BRANCH} --title image: {name_of(first)}"
    assert any(said.startswith(created) for said in site.gh_said)

    site.runner("first-promote").run(PROMOTE, {"IMAGE": image, **NIGHTLY})
    assert points_at(aws, "nightly") == image

    # The pull request is not merged yet: main has neither RUNBOOK.md nor variables.
    offered = site.branch(BRANCH)
    site.opened((3, True), (5, False))
    second = night(site, "second", first)
    assert second.outputs == {"image": image, "new": "false"}
    assert "Nothing has changed" in second.summary
    proposed = site.runner("second-propose", second, "nightly").run(PROPOSE)
    assert "nothing to offer" in proposed.text
    assert site.branch(BRANCH) == offered

    site.push(RECIPE.replace('"minetest"', '"mumble"'))
    third = night(site, "third", second)
    assert third.outputs["new"] == "true"
    site.runner("third-propose", third, "nightly").run(PROPOSE)
    edited = f"pr edit 5 --title image: {name_of(third)} --body-file nightly/summary.md"
    assert site.gh_said[-1] == edited
    history = site.file(BRANCH, "RUNBOOK.md")
    for baked in (first, third):
        assert f"| `{name_of(baked).removeprefix('game-host-')}` |" in history


def test_an_image_that_is_proven_is_offered_and_promoted_whatever_its_bake_has_left(
    start: Start, tmp_path: Path
) -> None:
    aws = start("DeleteSecurityGroup:1=UnauthorizedOperation", script=Answers())
    recipe = f'{RECIPE}[terraform]\ndirectory = "infra/live"\n'
    site = new_site(aws, tmp_path, recipe)
    site.opened((3, True))
    baked = site.runner("bake")
    assert baked.run(BAKE, check=False).exit_code == 4
    image = baked.outputs["image"]
    assert baked.outputs["new"] == "true"
    assert f"`{image}` in us-east-1" in baked.summary
    assert "the bake ended with exit code 4" in baked.summary
    assert list((baked.folder / CACHED).iterdir())

    site.runner("propose", baked, "nightly").run(PROPOSE)
    # A fork's pull request of the same name is not this one's.
    assert site.gh_said[-1].startswith("pr create")
    assert image in site.file(BRANCH, f"infra/live/{TFVARS}")
    site.runner("promote").run(PROMOTE, {"IMAGE": image, **NIGHTLY})
    assert points_at(aws, "nightly") == image

    # On a machine without its journals nobody knows that the bake is dead.
    blind = site.runner("blind")
    blind.run(REAP)
    assert "is left alone until" in blind.summary
    assert "nothing was left behind" not in blind.summary
    reap = site.runner("reap", baked, ".amibuild/journals")
    reap.run(REAP)
    assert "removed security-group sg-" in reap.summary


def test_a_bake_that_fails_says_so_on_the_page_and_reap_finds_nothing(
    start: Start, tmp_path: Path
) -> None:
    runner = new_site(start(script=Answers(exit_codes={"os": 1})), tmp_path).runner("bake")
    done = runner.run(BAKE, check=False)
    assert done.exit_code == 1
    assert runner.summary.startswith("## The bake failed")
    assert '"kind": "StepFailed"' in runner.summary
    assert runner.outputs == {}
    assert "nothing was left behind" in runner.run(REAP).text


PROVEN = '{"image": {"id": "ami-1", "name": "game-host-1"}, "reused": false}'


@pytest.mark.parametrize(
    ("script", "code", "outputs", "summary"),
    [
        ("exit 137", 137, {}, "## The bake failed"),
        ("exit 0", 1, {}, "## The bake failed"),
        (f"echo '{PROVEN}'; exit 1", 1, {"image": "ami-1", "new": "true"}, "`ami-1` has no papers"),
    ],
)
def test_a_bake_that_was_broken_off_is_told_by_what_it_said(
    aws: Aws, tmp_path: Path, script: str, code: int, outputs: dict[str, str], summary: str
) -> None:
    """Killed, it has said nothing; with a full disk it has an image and could not write it down."""
    site = new_site(aws, tmp_path)
    runner = site.runner("bake")
    runner.stand_in("amibuild", script)
    assert runner.run(BAKE, check=False).exit_code == code
    assert runner.outputs == outputs
    assert summary in runner.summary
    assert "nothing to offer" in site.runner("propose", runner, "nightly").run(PROPOSE).text


def test_a_reap_that_leaves_something_fails_and_says_what(aws: Aws, tmp_path: Path) -> None:
    runner = new_site(aws, tmp_path).runner("reap")
    runner.stand_in("amibuild", "echo left volume vol-1; exit 4")
    assert runner.run(REAP, check=False).exit_code == 4
    assert "left volume vol-1" in runner.summary


def test_what_people_approve_is_what_was_looked_at(aws: Aws, tmp_path: Path) -> None:
    site = new_site(aws, tmp_path)
    stage = Stage(aws, tmp_path / "game-host")
    old, new = stage.image("2026.11.21.1"), stage.image("2026.11.22.1")
    stage.promote(old)

    asked = {"CHANNEL": "staging", "REASON": 'the $(id) of "them"'}
    looked = site.runner("look")
    looked.run(LOOK, {"IMAGE": "@nightly", **asked})
    assert looked.outputs == {"image": old, "needed": "true"}
    assert f"to        {old}  game-host-2026.11.21.1" in looked.summary
    assert stage.points_at("staging") is None

    stage.promote(new)
    site.runner("move").run(MOVE, {"IMAGE": looked.outputs["image"], **asked})
    assert stage.points_at("staging") == old
    (entry,) = stage.history("staging")
    assert entry.note is not None and entry.note.reason == f"{asked['REASON']} (octocat, run 7)"

    again = site.runner("again")
    again.run(LOOK, {"IMAGE": old, **asked})
    assert again.outputs == {"image": old, "needed": "false"}
    refused = site.runner("refused")
    assert refused.run(LOOK, {"IMAGE": "--yes", **asked}, check=False).exit_code == 2
    assert refused.outputs == {}
    assert "--yes" in refused.summary


def test_a_night_does_not_undo_a_rollback_of_the_first_channel(aws: Aws, tmp_path: Path) -> None:
    site = new_site(aws, tmp_path)
    stage = Stage(aws, tmp_path / "game-host")
    old, bad = stage.image("2026.11.21.1"), stage.image("2026.11.22.1")
    stage.promote(old)
    stage.promote(bad)
    stage.roll_back()
    runner = site.runner("promote")
    runner.run(PROMOTE, {"IMAGE": bad, **NIGHTLY})
    assert f"nightly stays as it is: it was rolled back from `{bad}`" in runner.summary
    assert stage.points_at() == old


ROLLED_BACK = '{"error": {"kind": "PromotionRefused", "flags": [%s]}}'


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ('"--allow-rolled-back"', 0),
        ('"--allow-rolled-back", null', 2),
        ('"--allow-unverified"', 2),
    ],
)
def test_a_night_leaves_a_channel_alone_that_was_rolled_back_and_fails_at_all_else(
    aws: Aws, tmp_path: Path, flags: str, code: int
) -> None:
    runner = new_site(aws, tmp_path).runner("promote")
    runner.stand_in("amibuild", f"echo '{ROLLED_BACK % flags}'; exit 2")
    assert runner.run(PROMOTE, {"IMAGE": "ami-1", **NIGHTLY}, check=False).exit_code == code
    if code == 0:
        assert "nightly stays as it is: it was rolled back from `ami-1`" in runner.summary


@pytest.mark.parametrize("name", ["nightly-bake", "promote"])
def test_a_workflow_has_no_right_that_it_does_not_need(name: str) -> None:
    read = workflow(name)
    assert read["permissions"] == {}
    assert read["concurrency"]["cancel-in-progress"] is False
    for one in read["jobs"].values():
        assert "timeout-minutes" in one
        roles = [s for s in steps(one) if "configure-aws" in s.get("uses", "")]
        assert ("id-token" in one["permissions"]) == bool(roles) == ("environment" in one)
        assert (one["permissions"]["contents"] == "write") == (
            "pull-requests" in one["permissions"]
        )
        for step in steps(one):
            assert "${{" not in step.get("run", ""), "a value would be taken for shell"


def test_what_a_bake_leaves_is_kept_and_removed_whatever_became_of_it() -> None:
    """Its papers, its journals, its machines: a step that is skipped on failure would lose them."""
    after = steps(job("nightly-bake", "bake"))
    after = after[[step.get("id") for step in after].index("bake") + 1 :]
    always = [step for step in after if str(step.get("if", "")).startswith("always()")]
    uses = {step.get("uses", "").partition("@")[0] for step in always}
    assert uses == {"actions/cache/save", "actions/upload-artifact", ""}
    assert {step["with"]["path"] for step in always if "with" in step} == {
        CACHED,
        "nightly",
        ".amibuild/journals",
    }
    assert always[-1]["run"] == REAP
    reap = job("nightly-bake", "reap")
    assert reap["if"] == "always()"
    (brought,) = [s["with"] for s in steps(reap) if "download-artifact" in s.get("uses", "")]
    assert brought == {
        "pattern": "journals", "merge-multiple": True, "path": ".amibuild/journals"
    }  # fmt: skip
    conditions = {name: job("nightly-bake", name)["if"] for name in ("promote", "propose")}
    assert conditions == {
        "promote": "${{ !cancelled() && needs.bake.outputs.image != '' }}",
        "propose": "${{ !cancelled() && needs.bake.outputs.new == 'true' }}",
    }


def test_people_approve_a_promotion_once_it_was_looked_at() -> None:
    approved = job("promote", "promote")
    assert approved["environment"] == "${{ inputs.channel }}"
    assert approved["needs"] == "look"
    assert steps(approved)[-1]["env"] == {"IMAGE": "${{ needs.look.outputs.image }}"}
    assert job("promote", "look")["environment"] == "look"
    assert job("promote", "look")["outputs"]["image"] == "${{ steps.look.outputs.image }}"


@pytest.mark.parametrize(
    "where", [("nightly-bake", "promote"), ("promote", "look"), ("promote", "promote")]
)
def test_a_move_is_compared_by_the_manifests_that_the_bake_has_saved(
    where: tuple[str, str],
) -> None:
    """The cache goes by the name of the key's beginning, and by the path as it is written."""
    (saved,) = cached("save", "nightly-bake", "bake")
    (brought,) = cached("restore", *where)
    assert saved["path"] == brought["path"]
    (restored,) = cached("restore", "nightly-bake", "bake")
    assert restored["key"].startswith(brought["restore-keys"])


def cached(verb: str, *where: str) -> list[dict[str, str]]:
    wanted = f"actions/cache/{verb}@"
    return [s["with"] for s in steps(job(*where)) if s.get("uses", "").startswith(wanted)]
