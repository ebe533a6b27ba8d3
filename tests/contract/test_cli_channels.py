"""promote, rollback, channels, revoke and prune as they are typed, in this process:
`[aws.endpoints]` of the recipe lead to the endpoint, as they would to one of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from amibuild.cli.main import app
from amibuild.outputs.manifest import to_json
from tests.contract.conftest import KEY, Aws
from tests.contract.imaged import snapshot_of
from tests.contract.promoted import Stage
from tests.unit.samples import manifest

OLD, NEW = "2026.11.21.1", "2026.11.22.1"


class Typed:
    """A folder with the recipe, and the command line in it."""

    def __init__(self, aws: Aws, folder: Path) -> None:
        url = aws.service.url
        self.more = f'[aws.endpoints]\nec2 = "{url}"\nssm = "{url}"\n'
        self.stage = Stage(aws, folder, self.more)

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """stdout and stderr."""
        done = CliRunner().invoke(app, [*words, "--target", "aws"])
        assert done.exit_code == code, done.output
        return done.stdout, done.stderr

    def ask(self, *words: str, code: int = 0) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run(*words, "--json", code=code)[0])
        return told


@pytest.fixture
def typed(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    for name, value in (("ID", KEY.id), ("", KEY.secret)):
        key = "AWS_ACCESS_KEY_ID" if name else "AWS_SECRET_ACCESS_KEY"
        monkeypatch.setenv(key, value)
    made = Typed(aws, tmp_path / "game-host")
    monkeypatch.chdir(made.stage.path.parent)
    return made


def test_a_move_is_shown_and_needs_a_yes(typed: Typed) -> None:
    image = typed.stage.image(OLD)
    out, err = typed.run("promote", OLD, "--to", "nightly", code=2)
    assert out == ""
    assert f"to        {image}  game-host-{OLD}" in err
    assert f"no manifest of {image}" in err
    assert "--yes" in err
    assert typed.stage.points_at() is None
    assert typed.ask("promote", OLD, "--to", "nightly", code=2)["error"]["exit_code"] == 2
    out, _ = typed.run("promote", OLD, "--to", "nightly", "--yes")
    assert out == f"nightly  nothing -> {image}\n"
    out, err = typed.run("promote", OLD, "--to", "nightly")
    assert out == f"{image}\n"
    assert f"nightly has {image} (game-host-{OLD}) already" in err


def test_its_json_has_the_difference_of_the_manifests(typed: Typed) -> None:
    old, new = typed.stage.image(OLD), typed.stage.image(NEW)
    folder = typed.stage.path.parent / ".amibuild" / "manifests"
    folder.mkdir(parents=True)
    later = manifest(NEW, image_id=new)
    later = later.model_copy(update={"packages": {**later.packages, "bash": "5.2.37-3"}})
    for one in (manifest(OLD, image_id=old), later):
        (folder / f"{one.image.name}.json").write_text(to_json(one))
    typed.run("promote", OLD, "--to", "nightly", "--yes")
    told = typed.ask("promote", NEW, "--to", "nightly", "--yes", "--reason", "bash")
    assert (told["changed"], told["version"]) == (True, 2)
    assert (told["from"]["id"], told["to"]["id"]) == (old, new)
    bash = {"name": "bash", "before": "5.2.37-2", "after": "5.2.37-3"}
    assert told["difference"] == {"packages": [bash], "services": []}
    again = typed.ask("promote", NEW, "--to", "nightly")
    assert (again["changed"], again["version"], again["journal"]) == (False, 2, None)


def test_a_look_at_a_move_resolves_and_refuses_and_changes_nothing(typed: Typed) -> None:
    """What somebody approves elsewhere: it has no terminal, and must not need a yes."""
    old, new = typed.stage.image(OLD), typed.stage.image(NEW)
    typed.run("promote", OLD, "--to", "nightly", "--yes")
    out, err = typed.run("promote", NEW, "--to", "nightly", "--dry-run", "--yes")
    assert out == f"would change nightly  {old} -> {new}\n"
    assert f"to        {new}  game-host-{NEW}" in err
    look = typed.ask("promote", "@nightly", "--to", "staging", "--dry-run")
    assert (look["to"]["id"], look["from"]) == (old, None)
    assert (look["needed"], look["changed"], look["journal"]) == (True, False, None)
    again = typed.ask("promote", OLD, "--to", "nightly", "--dry-run")
    assert (again["needed"], again["changed"], again["to"]["id"]) == (False, False, old)
    skips = typed.ask("promote", NEW, "--to", "staging", "--dry-run", code=2)["error"]
    assert skips["kind"] == "PromotionRefused"
    typed.run("promote", NEW, "--to", "nightly", "--yes")
    back = typed.ask("rollback", "nightly", "--dry-run")
    assert (back["verb"], back["to"]["id"], back["changed"]) == ("rollback", old, False)
    assert (typed.stage.points_at(), typed.stage.points_at("staging")) == (new, None)


def test_a_refusal_names_the_flag(typed: Typed) -> None:
    image = typed.stage.image(OLD, **{"amibuild:verified": ""})
    told = typed.ask("promote", image, "--to", "staging", "--yes", code=2)["error"]
    assert told["kind"] == "PromotionRefused"
    assert len(told["reasons"]) == 2
    for reason, flag in zip(told["reasons"], ("--allow-unverified", "--allow-skip"), strict=True):
        assert flag in reason
    assert told["flags"] == ["--allow-unverified", "--allow-skip"]
    flags = ("--allow-unverified", "--allow-skip", "--allow-deprecated")
    typed.run("promote", image, "--to", "staging", "--yes", *flags)
    assert typed.stage.points_at("staging") == image


def test_what_was_rolled_back_is_told_from_all_else(typed: Typed) -> None:
    """A nightly run that comes upon it has not failed."""
    typed.stage.promote(typed.stage.image(OLD))
    bad = typed.stage.image(NEW)
    typed.stage.promote(bad)
    typed.run("rollback", "nightly", "--yes", "--reason", "crashes")
    words = ("promote", bad, "--to", "nightly", "--yes")
    told = typed.ask(*words, code=2)["error"]
    assert (told["kind"], told["flags"]) == ("PromotionRefused", ["--allow-rolled-back"])
    assert ": crashes; --allow-rolled-back takes it" in told["reasons"][0]
    typed.run(*words, "--allow-rolled-back")
    assert typed.stage.points_at() == bad


def test_a_bad_image_is_taken_back_and_the_channel_mended_as_it_says(typed: Typed) -> None:
    old, new = typed.stage.image(OLD), typed.stage.image(NEW)
    typed.run("promote", OLD, "--to", "nightly", "--yes")
    typed.run("promote", NEW, "--to", "nightly", "--yes", "--reason", "openssl")
    told = typed.ask("revoke", "@nightly", "--reason", "crashes", "--yes")
    (mend,) = told["channels"]
    assert mend["rollback"] == "amibuild rollback nightly --target aws"
    assert mend["promote"] is None
    out, _ = typed.run("channels")
    assert "revoked" in out.splitlines()[1]
    out, _ = typed.run("rollback", "nightly", "--yes")
    assert out == f"nightly  {new} -> {old}\n"
    rows = typed.ask("channels", "history", "nightly")["history"]
    assert [(row["image"], row["verb"], row["reason"]) for row in rows] == [
        (old, "rollback", ""),
        (new, "promote", "openssl"),
        (old, "promote", ""),
    ]
    assert [row["previous"] for row in rows] == [new, old, None]
    seen = typed.ask("channels")["channels"]
    assert [one["name"] for one in seen] == ["nightly", "staging", "production"]
    place = seen[0]["regions"]["us-east-1"]
    assert (place["image"], place["version"], place["state"]) == (old, OLD, "available")
    assert seen[1]["regions"]["us-east-1"]["state"] == "empty"
    again = typed.ask("revoke", new, "--reason", "other")
    assert (again["changed"], again["reason"], again["channels"]) == (False, "crashes", [])


def test_where_no_way_leads_back_the_next_image_is_named(typed: Typed) -> None:
    only = typed.stage.image(OLD)
    typed.run("promote", OLD, "--to", "nightly", "--yes")
    _, err = typed.run("revoke", OLD, "--reason", "crashes", code=2)
    assert "nightly has it: no other image is there" in err
    new = typed.stage.image(NEW)
    (mend,) = typed.ask("revoke", OLD, "--reason", "crashes", "--yes")["channels"]
    assert mend["promote"] == f"amibuild promote {NEW} --to nightly --target aws"
    assert mend["rollback"] is None
    told = typed.ask("promote", only, "--to", "nightly", code=2)["error"]
    assert (told["reasons"], told["flags"]) == (["it is revoked: crashes"], [None])
    out, _ = typed.run(*mend["promote"].split()[1:-2], "--yes")
    assert out == f"nightly  {only} -> {new}\n"


def test_terraform_is_given_the_image_that_a_channel_has(typed: Typed) -> None:
    told = typed.ask("terraform", code=2)["error"]
    assert told["message"].startswith("there is no verified image of game-host")
    old, new = typed.stage.image(OLD), typed.stage.image(NEW)
    folder = typed.stage.path.parent
    (folder / ".amibuild" / "manifests").mkdir(parents=True)
    for version, image in ((OLD, old), (NEW, new)):
        one = manifest(version, image_id=image)
        (folder / ".amibuild" / "manifests" / f"{one.image.name}.json").write_text(to_json(one))
    typed.run("promote", OLD, "--to", "nightly", "--yes")
    handed = typed.ask("terraform", "--image", "@nightly")
    assert (handed["image"]["id"], handed["kept"]) == (old, [])
    assert all((folder / path).is_file() for path in handed["written"])
    out, err = typed.run("terraform")
    pinned = folder / "terraform" / "amibuild.auto.tfvars.json"
    assert str(pinned) in out.splitlines()
    assert json.loads(pinned.read_text())["amibuild_ami_id"] == new, "the newest"
    assert "examples/host is yours and stays as it is" in " ".join(err.split())


def test_prune_shows_its_plan_and_needs_a_yes(typed: Typed) -> None:
    aws = typed.stage.aws
    # Of a snapshot that no other image is made of, or it would stay in use.
    captured = aws.image()
    own = snapshot_of(aws, captured)
    aws.ec2.deregister_image(ImageId=captured)
    old = Stage(aws, typed.stage.path.parent, typed.more, own).image(OLD)
    new = typed.stage.image(NEW)
    words = ("prune", "--keep", "1", "--days", "0")
    assert typed.ask("prune")["removed"] == []  # the recipe's own rule has both
    would = typed.ask(*words, "--dry-run")
    assert [one["id"] for one in would["would_remove"]] == [old]
    assert [(one["id"], one["why"]) for one in would["stays"]] == [(new, ["the newest"])]
    out, err = typed.run(*words, code=2)
    assert out == ""
    assert f"would remove {old}" in err and "--yes" in err
    typed.stage.put(old)
    _, err = typed.run(*words)
    assert f"{old} (game-host-{OLD}): the channel nightly has it" in err
    typed.stage.aws.ssm.delete_parameter(Name=typed.stage.parameter())
    told = typed.ask(*words, "--yes")
    assert [one["id"] for one in told["removed"]] == [old]
    assert (told["left"], [one["id"] for one in told["stays"]]) == ([], [new])
    assert typed.ask(*words)["journal"] is None


def test_what_is_there_and_not_the_recipes_is_told_from_what_is_gone(typed: Typed) -> None:
    other = typed.stage.image(OLD, **{"amibuild:image": "other-host"})
    gone = typed.stage.image(NEW)
    typed.stage.put(other, "nightly")
    typed.stage.put(gone, "staging")
    typed.stage.aws.ec2.deregister_image(ImageId=gone)
    parameter = typed.stage.parameter("production")
    typed.stage.aws.ssm.put_parameter(Name=parameter, Value="ami-soon", Type="String")
    told = [one["regions"]["us-east-1"] for one in typed.ask("channels")["channels"]]
    assert [one["state"] for one in told] == ["foreign", "gone", "gone"]
    assert [one["name"] for one in told] == [f"game-host-{OLD}", None, None]
    assert f"{other}  game-host-{OLD}" in typed.run("channels")[0]
