"""What differs between two images, and what is shown of it before a channel moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from amibuild.aws.ssm import ParameterVersion
from amibuild.change import Change, Checks
from amibuild.channels import Channel, Verb
from amibuild.cli.promote import SHOWN, age_text, change_text, moved_json
from amibuild.names import Region
from amibuild.outputs.difference import Changed, Difference, changed, count_text, difference
from amibuild.outputs.manifest import Kind
from amibuild.promote import Move, MoveResult
from amibuild.registry import ImageFacts
from tests.unit.samples import build_step, default_steps, manifest, step

NOW = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)


def facts(version: str, days: float, **changes: object) -> ImageFacts:
    one = ImageFacts(
        id=f"ami-{version[-4:-2]}",
        name=f"game-host-{version}",
        image="game-host",
        version=version,
        digest="3f" * 32,
        state="available",
        created=NOW - timedelta(days=days),
        verified=True,
        source_ami="ami-1",
        bake_id="20261122-101500-a1b2c3",
        region="us-east-1",
        size_gib=8,
        snapshot_ids=(),
        tags={},
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def test_packages_are_new_gone_or_of_another_version() -> None:
    before, after = manifest(), manifest()
    packages = {"bash": "5.2.37-3", "luanti-server": "5.10.0-1", "openssl": "3.5.1"}
    found = difference(
        before.model_copy(update={"packages": {**before.packages, "at": "1"}}),
        after.model_copy(update={"packages": packages}),
    )
    assert found.packages == (
        Changed("at", "1", None),
        Changed("bash", "5.2.37-2", "5.2.37-3"),
        Changed("openssl", None, "3.5.1"),
    )
    assert list(map(str, found.packages)) == [
        "- at 1",
        "~ bash 5.2.37-2 -> 5.2.37-3",
        "+ openssl 3.5.1",
    ]


def test_a_service_differs_when_what_installs_it_does() -> None:
    """Other steps are no services, whatever they do."""
    other = (step(build_step("os", "echo other\n")), *default_steps()[1:])
    assert difference(manifest(), manifest(steps=other)).services == ()
    service = step(build_step("minetest", "echo other\n"), Kind.SERVICE)
    more = step(build_step("arena"), Kind.SERVICE)
    found = difference(manifest(), manifest(steps=(*other[:1], service, more, other[-1])))
    assert [(one.name, one.before is None) for one in found.services] == [
        ("arena", True),
        ("minetest", False),
    ]


def test_equal_images_are_said_to_be_the_same() -> None:
    same = difference(manifest(), manifest("2026.11.23.1"))
    assert same == Difference((), ())
    assert count_text(same.packages) == "the same"


def test_differences_are_counted() -> None:
    found = changed({"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "2", "d": "1"})
    assert count_text(found) == "2 changed, 1 new, 1 gone"


def moving(before: ImageFacts | None, after: ImageFacts) -> Move:
    current = ParameterVersion("/a", before.id, 4, NOW) if before else None
    channel = Channel("staging", "game-host", "/a", Region("us-east-1"), current)
    return Move(Verb.PROMOTE, channel, after, before)


def test_the_change_says_from_what_to_what() -> None:
    old, new = facts("2026.11.21.1", 3), facts("2026.11.22.1", 0.2, verified=False)
    found = difference(manifest(), manifest().model_copy(update={"packages": {"bash": "5.2.37-3"}}))
    change = Change(old, new, found, Checks(24, 0, 1), ())
    assert change_text(moving(old, new), change, NOW).splitlines() == [
        "promote staging  /a  us-east-1",
        f"  from      {old.id}  game-host-2026.11.21.1  3 d old",
        f"  to        {new.id}  game-host-2026.11.22.1  4 h old, not verified",
        "  checks    24 passed, 1 skipped",
        "  packages  1 changed, 1 gone",
        "    ~ bash 5.2.37-2 -> 5.2.37-3",
        "    - luanti-server 5.10.0-1",
        "  services  the same",
    ]


def test_without_manifests_it_says_so() -> None:
    new = facts("2026.11.22.1", 0)
    change = Change(None, new, None, None, ("no manifest of ami-1 in /x: it was baked elsewhere",))
    text = change_text(moving(None, new), change, NOW)
    assert "  from      nothing\n" in text
    assert text.endswith("note: no manifest of ami-1 in /x: it was baked elsewhere")
    assert "packages" not in text


def test_a_long_list_is_cut_and_the_json_has_all_of_it() -> None:
    many = changed({}, {f"package-{n:03}": "1" for n in range(SHOWN + 5)})
    old, new = facts("2026.11.21.1", 3), facts("2026.11.22.1", 1)
    change = Change(old, new, Difference(many, ()), None, ())
    lines = change_text(moving(old, new), change, NOW).splitlines()
    assert "    and 5 more: --json has all" in lines
    assert sum(line.startswith("    + ") for line in lines) == SHOWN
    told = moved_json(MoveResult(moving(old, new), 5, "a-move"), change)
    assert len(told["difference"]["packages"]) == SHOWN + 5
    assert (told["changed"], told["version"], told["from"]["id"]) == (True, 5, old.id)


def test_an_age_is_rounded_down() -> None:
    ages = [timedelta(minutes=-1), timedelta(minutes=59), timedelta(hours=47), timedelta(days=2)]
    assert list(map(age_text, ages)) == ["0 min", "59 min", "47 h", "2 d"]
