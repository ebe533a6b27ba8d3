"""The verbs against a real endpoint process whose machines are scripted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.place import Place, new_place


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
    assert here.ask("local", "down") == {"stopped": True, "removed": []}
    assert here.ask("local", "down") == {"stopped": False, "removed": []}


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
    assert report == {"removed": [], "would_remove": [], "left": [], "live": [], "kept": []}
