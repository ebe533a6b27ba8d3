"""The verbs against a real endpoint process whose machines are scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from amibuild.names import Tag
from amibuild.outputs.manifest import to_json
from tests.contract.imaged import tagged
from tests.contract.place import Place, new_place
from tests.unit.samples import manifest


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One endpoint for all tests that only look: a start costs more than a second."""
    place = new_place(tmp_path_factory.mktemp("running"))
    place.run("local", "up", "--machine", "none")
    yield place
    place.run("local", "down")


def test_plan_names_source_digest_and_steps_and_leaves_nothing(here: Place) -> None:
    plan = here.ask("plan", "--machine", "none")
    assert plan["source"]["reference"].endswith("/13/latest/amd64")
    assert [step["name"] for step in plan["steps"]] == ["ssm-agent", "os", "minetest", "seal"]
    assert plan["reusable"] is None
    assert plan["why"][0].startswith("nothing to compare with: no manifest of an image in ")
    assert not (here.folder / ".amibuild").exists()
    assert here.ask("local", "status")["running"] is False


def test_an_endpoint_that_is_up_is_used_and_stays(here: Place) -> None:
    up = here.ask("local", "up", "--machine", "none")
    assert here.run("local", "up", "--machine", "none").text.splitlines() == [
        f"export {name}={value}" for name, value in up["environment"].items()
    ]
    assert up["url"].encode() in here.run("plan").stderr
    status = here.ask("local", "status")
    assert (status["running"], status["pid"]) == (True, up["pid"])
    assert here.ask("local", "down") == {"stopped": True, "ended": [], "removed": []}
    assert here.ask("local", "down") == {"stopped": False, "ended": [], "removed": []}


def test_down_says_which_kept_machine_of_a_bake_ends_with_it(here: Place) -> None:
    here.run("local", "up", "--machine", "none")
    bake = {Tag.BAKE_ID: "20261122-101500-a1b2c3", Tag.PURPOSE: "build"}
    kept = here.launch(**bake)
    here.launch()
    gone = here.launch(**bake)
    here.ec2().terminate_instances(InstanceIds=[gone])
    down = here.run("local", "down", "--json")
    assert json.loads(down.stdout)["ended"] == [
        {"id": kept, "bake_id": bake[Tag.BAKE_ID], "purpose": "build"}
    ]
    assert f"{kept} has ended, the build machine of bake {bake[Tag.BAKE_ID]}" in (
        down.stderr.decode()
    )


def test_reset_forgets_the_images_only_when_that_is_confirmed(here: Place) -> None:
    here.run("plan", "--machine", "none")
    unasked = here.run("local", "reset", check=False)
    assert (unasked.exit_code, b"--yes" in unasked.stderr) == (2, True)
    store = here.folder / "data" / "local" / "none" / "store"
    assert here.ask("local", "reset", "--yes") == {"removed": [str(store)]}
    assert not store.exists()
    assert here.ask("local", "reset", "--yes") == {"removed": []}


def test_the_same_recipe_gives_the_same_digest_and_an_override_another(running: Place) -> None:
    first = running.ask("plan")["digest"]
    assert running.ask("plan")["digest"] == first
    assert running.ask("plan", "--set", "builder.volume_gib=9")["digest"] != first
    assert running.ask("plan", "--set", "aws.kms_key=alias/mine")["digest"] != first


def test_the_target_is_told_on_stderr_alone(running: Place) -> None:
    done = running.run("plan")
    assert b"target local: http://127.0.0.1:" in done.stderr
    assert b"http://" not in done.stdout


def test_status_lists_a_machine_that_another_client_started(running: Place) -> None:
    instance = running.launch()
    rows = running.run("local", "status").text.splitlines()
    assert any(row.startswith(instance) and " none " in row for row in rows), rows


def test_images_of_an_empty_account_are_none(running: Place) -> None:
    assert running.ask("images") == {"images": []}


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_an_image_that_is_not_there_is_a_usage_error(running: Place, verb: str) -> None:
    done = running.run(verb, "2026.01.01.1", check=False)
    assert done.exit_code == 2
    assert b"there is no image 2026.01.01.1 of game-host" in done.stderr


def test_reap_of_a_clean_account_removes_nothing(running: Place) -> None:
    report = running.ask("reap")
    nothing = ("removed", "would_remove", "left", "live", "busy", "elsewhere", "kept", "leased")
    assert report == {"regions": ["us-east-1"], "unreached": [], **{key: [] for key in nothing}}


def test_show_takes_no_other_images_manifest_and_outlives_a_broken_one(running: Place) -> None:
    tags = {Tag.IMAGE: "game-host", Tag.VERSION: "1"}
    ec2 = running.ec2()
    instance = running.launch()
    ec2.get_waiter("instance_running").wait(
        InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    made = ec2.create_image(
        InstanceId=instance,
        Name="game-host-1",
        TagSpecifications=tagged("image", **tags),  # type: ignore[arg-type]
    )["ImageId"]
    path = running.folder / ".amibuild/manifests/game-host-1.json"
    path.parent.mkdir(parents=True)
    path.write_text(to_json(manifest(image_id="ami-0aaaaaaaaaaaaaaaa")))
    assert running.ask("show", "1")["manifest"] is None
    path.write_text(to_json(manifest(image_id=made)))
    assert running.ask("show", "1")["manifest"]["image"]["id"] == made
    path.write_text("{")
    done = running.run("show", "1")
    assert made in done.text
    assert f"{path}: Invalid JSON" in done.stderr.decode()
    ec2.deregister_image(ImageId=made)
