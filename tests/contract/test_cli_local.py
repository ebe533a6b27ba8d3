"""The verbs against a real endpoint process whose machines are scripted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from amibuild import proc

RECIPE = '[image]\nname = "game-host"\n[provision]\nsteps = ["os"]\nservices = ["minetest"]\n'
Amibuild = Callable[..., proc.Finished]


@pytest.fixture
def amibuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Amibuild]:
    """Runs a verb in a folder with a recipe; what `local up` left is ended afterwards."""
    (tmp_path / "amibuild.toml").write_text(RECIPE)

    def run(*arguments: str, check: bool = True) -> proc.Finished:
        words = [sys.executable, "-m", "amibuild.cli.main", *arguments]
        return proc.run(words, cwd=tmp_path, check=check)

    yield run
    run("local", "down")


def facts(done: proc.Finished) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def test_plan_names_source_digest_and_steps_and_leaves_nothing(
    amibuild: Amibuild, tmp_path: Path
) -> None:
    plan = facts(amibuild("plan", "--machine", "none", "--json"))
    assert plan["source"]["reference"].endswith("/13/latest/amd64")
    assert [step["name"] for step in plan["steps"]] == ["ssm-agent", "os", "minetest", "seal"]
    assert plan["reusable"] is None
    assert not (tmp_path / ".amibuild").exists()
    assert facts(amibuild("local", "status", "--json"))["running"] is False


def test_the_same_recipe_gives_the_same_digest_and_an_override_another(amibuild: Amibuild) -> None:
    def digest(*overrides: str) -> str:
        done = amibuild("plan", "--machine", "none", "--json", *overrides)
        return str(facts(done)["digest"])

    assert digest() == digest() != digest("--set", "builder.volume_gib=9")


def test_plan_says_on_stderr_which_target_it_used(amibuild: Amibuild) -> None:
    done = amibuild("plan", "--machine", "none")
    assert b"target local: http://127.0.0.1:" in done.stderr
    assert b"http://" not in done.stdout


def test_an_endpoint_that_is_up_is_used_and_stays(amibuild: Amibuild) -> None:
    up = facts(amibuild("local", "up", "--machine", "none", "--json"))
    assert amibuild("local", "up", "--machine", "none").text.splitlines() == [
        f"export {name}={value}" for name, value in up["environment"].items()
    ]
    assert up["url"].encode() in amibuild("plan").stderr
    status = facts(amibuild("local", "status", "--json"))
    assert (status["running"], status["pid"]) == (True, up["pid"])
    assert facts(amibuild("local", "down", "--json")) == {"stopped": True}
    assert facts(amibuild("local", "down", "--json")) == {"stopped": False}


def test_status_lists_a_machine_that_another_client_started(amibuild: Amibuild) -> None:
    up = facts(amibuild("local", "up", "--machine", "none", "--json"))
    client = boto3.client(
        "ec2",
        endpoint_url=up["url"],
        region_name=up["environment"]["AWS_DEFAULT_REGION"],
        aws_access_key_id=up["environment"]["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=up["environment"]["AWS_SECRET_ACCESS_KEY"],
    )
    image = facts(amibuild("plan", "--json"))["source"]["id"]
    started = client.run_instances(ImageId=image, MinCount=1, MaxCount=1)
    instance = started["Instances"][0]["InstanceId"]
    rows = amibuild("local", "status").text.splitlines()
    assert any(row.startswith(instance) and " none " in row for row in rows), rows


def test_images_of_an_empty_account_are_none(amibuild: Amibuild) -> None:
    assert facts(amibuild("images", "--machine", "none", "--json")) == {"images": []}


def test_an_image_that_is_not_there_is_a_usage_error(amibuild: Amibuild) -> None:
    for verb in ("show", "verify"):
        done = amibuild(verb, "2026.01.01.1", "--machine", "none", check=False)
        assert done.exit_code == 2
        assert b"there is no image 2026.01.01.1 of game-host" in done.stderr


def test_reap_of_a_clean_account_removes_nothing(amibuild: Amibuild) -> None:
    report = facts(amibuild("reap", "--machine", "none", "--json"))
    assert report == {"removed": [], "would_remove": [], "left": [], "live": []}


def test_reset_asks_and_then_forgets_the_images(amibuild: Amibuild) -> None:
    amibuild("plan", "--machine", "none")
    unasked = amibuild("local", "reset", check=False)
    assert (unasked.exit_code, b"--yes" in unasked.stderr) == (2, True)
    removed = facts(amibuild("local", "reset", "--yes", "--json"))["removed"]
    assert [Path(path).name for path in removed] == ["store"]
    assert facts(amibuild("local", "reset", "--yes", "--json"))["removed"] == []
