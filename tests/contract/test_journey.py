"""From a night's bake to production and back: bake, nightly, soak checks, staging, production,
Terraform plans the new AMI, a bad image is revoked, rollback, Terraform plans the old one.

Every word of it is typed: see journey.py. The machines are scripted, all else is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.contract import builder, terraform_cli
from tests.contract.builder import scripted
from tests.contract.journey import CHANNELS, REASON, Journey, Walked, walk
from tests.local.clients import need

# Its parts have tests of their own in each run.
pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    here = Journey(tmp_path_factory.mktemp("journey") / "game-host")
    here.folder.mkdir()
    results = {
        "inventory": builder.INVENTORY,
        "hygiene": builder.HYGIENE,
        "checks": builder.checks(),
        "bzflag": {"installed_bytes": 9_000_000},
        **dict.fromkeys(("first-boot", "ssm-agent", "os", "welcome", "seal")),
    }
    script = here.folder / "script.json"
    script.write_text(json.dumps([scripted(job, result) for job, result in results.items()]))
    yield here
    here.amibuild("local", "down")


@pytest.fixture(scope="module")
def walked(journey: Journey) -> Walked:
    up = journey.ask("local", "up", "--machine", "none", "--script", "script.json")
    more = None if terraform_cli.problem() else journey.folder.parent / "terraform"
    return walk(journey, up["environment"], more)


def test_an_image_goes_to_production_and_a_bad_one_comes_back(
    journey: Journey, walked: Walked
) -> None:
    old, new = walked.old, walked.new
    assert walked.forth == [(old, new)] * len(walked.forth)
    assert walked.mended == list(CHANNELS)
    assert walked.back == [(new, old)] * len(walked.back)
    for one in journey.ask("channels")["channels"]:
        place = one["regions"]["us-east-1"]
        assert (place["image"], place["state"]) == (old, "available"), one["name"]
    rows = journey.ask("channels", "history", "production")["history"]
    assert [(row["image"], row["verb"]) for row in rows] == [
        (old, "rollback"),
        (new, "promote"),
        (old, "promote"),
    ]


def test_what_was_bad_does_not_come_again(journey: Journey, walked: Walked) -> None:
    story = journey.amibuild("promote", walked.new, "--to", "nightly", "--yes", code=2).story
    assert f"it is revoked: {REASON}" in " ".join(story.split())
    assert journey.ask("plan")["reusable"] is None
    assert journey.ask("show", "@production")["id"] == walked.old


def test_the_record_has_each_word_and_what_it_said(walked: Walked, journey: Journey) -> None:
    typed = [line for line in journey.record if line.startswith("$ ")]
    assert typed.index("$ amibuild verify @staging") < typed.index(
        "$ amibuild promote @staging --to production --reason 'the first' --yes"
    )
    assert f"production  {walked.new} -> {walked.old}" in journey.record


def test_terraform_itself_planned_it(walked: Walked) -> None:
    need("terraform", terraform_cli.problem())
    assert len(walked.forth) == len(walked.back) == 2
