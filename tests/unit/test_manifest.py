"""The manifest says everything once, in one order, and comes back from JSON as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from amibuild.errors import RecipeError
from amibuild.library.step import StepFile
from amibuild.outputs.manifest import (
    LARGEST_CONTENT,
    Check,
    file_record,
    from_json,
    newest_first,
    schema,
    to_json,
)
from tests.unit.samples import manifest


def test_it_comes_back_from_json_as_it_was() -> None:
    written = manifest()
    assert from_json(to_json(written), Path("m.json")) == written


def test_its_text_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    golden("manifest.json", to_json(manifest()))


def test_its_schema_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    golden("manifest.schema.json", json.dumps(schema(), indent=2) + "\n")


def test_one_of_before_waived_keys_were_told_is_read() -> None:
    old = json.loads(to_json(manifest()))
    del old["hygiene"]["waived"]
    assert from_json(json.dumps(old), Path("old.json")).hygiene.waived == ()


def test_every_wrong_key_is_reported_with_the_file() -> None:
    body = json.loads(to_json(manifest()))
    body["digest"] = 7
    body["image"]["colour"] = "red"
    with pytest.raises(RecipeError) as error:
        from_json(json.dumps(body), Path("m.json"))
    assert {p.key for p in error.value.problems} == {"digest", "image.colour"}
    assert {p.path for p in error.value.problems} == {Path("m.json")}


def test_another_schema_version_is_refused_with_a_way_out() -> None:
    body = json.loads(to_json(manifest())) | {"schema_version": 2}
    with pytest.raises(RecipeError, match="another version of amibuild"):
        from_json(json.dumps(body), Path("m.json"))


def test_packages_units_and_users_are_sorted() -> None:
    m = manifest()
    assert list(m.packages) == ["bash", "luanti-server"]
    assert m.units_enabled == ("cron.service", "minetest.service")


def test_text_is_kept_as_text_and_bytes_as_base64() -> None:
    text = file_record(StepFile("a", "grüß\n".encode()))
    raw = file_record(StepFile("b", b"\xff\x00"))
    assert (text.content, text.content_base64) == ("grüß\n", None)
    assert (raw.content, raw.content_base64) == (None, "/wA=")
    assert raw.read() == b"\xff\x00"


def test_content_is_kept_up_to_64_kib_and_hashed_beyond() -> None:
    kept = file_record(StepFile("a", b"x" * LARGEST_CONTENT))
    dropped = file_record(StepFile("a", b"x" * (LARGEST_CONTENT + 1)))
    assert kept.read() == b"x" * LARGEST_CONTENT
    assert dropped.read() is None
    assert dropped.size == LARGEST_CONTENT + 1
    assert len(dropped.sha256) == 64


@pytest.mark.parametrize(
    ("outcomes", "verified"),
    [
        ((), False),
        (("skipped",), False),
        (("passed", "skipped"), True),
        (("passed", "failed"), False),
        (("passed", "error"), False),
    ],
)
def test_verified_means_that_checks_ran_and_none_failed(
    outcomes: tuple[str, ...], verified: bool
) -> None:
    checks = tuple(
        Check.model_validate({"name": "t", "outcome": o, "seconds": 0.1}) for o in outcomes
    )
    assert manifest(checks=checks).verified is verified


def test_the_newest_comes_first() -> None:
    old, new = manifest("2026.11.22.9"), manifest("2026.11.23.1", days=1)
    assert newest_first([old, new]) == [new, old]
