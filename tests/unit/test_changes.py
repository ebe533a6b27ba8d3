"""What a plan makes otherwise than the last image, and what a new image has otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amibuild.library.step import BuildStep, StepFile
from amibuild.names import ON_BUILDER
from amibuild.outputs.changes import changes
from amibuild.outputs.manifest import Manifest, to_json
from amibuild.outputs.summary import summary, summary_of_reused
from amibuild.plan import Plan, SourceImage, digest_of
from amibuild.record import last_manifest
from tests.unit.samples import build_step, manifest, step

SOURCE = SourceImage(
    id="ami-00000000000000001",
    name="debian-13-amd64-20261122-local",
    owner="136693071363",
    reference="/aws/service/debian/release/13/latest/amd64",
    created=datetime(2026, 11, 22, tzinfo=UTC),
    architecture="x86_64",
    root_device="/dev/xvda",
    size_gib=2,
)
OS = build_step("os")
HARDENING = build_step(
    "hardening",
    files=(StepFile("files/sshd.conf", b"a"), StepFile("files/old.conf", b"a")),
    environment={"PARAM_MINUTES": "30", "PARAM_BANNER": "x" * 60},
)


def plan(*steps: BuildStep, source: SourceImage = SOURCE, volume_gib: int = 8) -> Plan:
    digest = digest_of(source.id, steps, volume_gib, None)
    return Plan("game-host", source, steps, volume_gib, digest)


def last(*steps: BuildStep) -> Manifest:
    """The image that a plan of these steps has made."""
    made = manifest(steps=tuple(step(one) for one in steps))
    return made.model_copy(update={"digest": plan(*steps).digest})


def test_nothing_has_changed_where_the_digest_is_the_same() -> None:
    assert changes(last(OS, HARDENING), plan(OS, HARDENING)) == ()


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (replace(HARDENING, script="other\n"), ("hardening/run.sh",)),
        (
            replace(HARDENING, files=(StepFile("files/sshd.conf", b"b"), StepFile("new", b""))),
            (
                "hardening/files/old.conf is gone",
                "hardening/files/sshd.conf",
                "hardening/new is new",
            ),
        ),
        (
            replace(HARDENING, environment={"PARAM_MINUTES": "15", "PARAM_BANNER": "y" * 60}),
            ("hardening: PARAM_BANNER", "hardening: PARAM_MINUTES 30 -> 15"),
        ),
        (
            replace(HARDENING, files=(replace(HARDENING.files[0], mode=0o755), HARDENING.files[1])),
            ("hardening/files/sshd.conf",),
        ),
        (replace(HARDENING, secrets=("token",)), ("hardening: the secrets that it reads",)),
    ],
)  # fmt: skip
def test_a_step_tells_which_of_its_parts_differ(after: BuildStep, told: tuple[str, ...]) -> None:
    assert changes(last(OS, HARDENING), plan(OS, after)) == told


def test_steps_that_come_go_or_change_places_are_told() -> None:
    before = last(OS, HARDENING)
    assert changes(before, plan(OS)) == ("hardening is gone",)
    assert changes(before, plan(OS, HARDENING, build_step("x"))) == ("x is new",)
    assert changes(before, plan(HARDENING, OS)) == ("the order of the steps: hardening, os",)


def test_source_volume_and_key_are_told() -> None:
    newer = replace(SOURCE, id="ami-2", name="debian-13-amd64-20261123")
    assert changes(last(OS), plan(OS, source=newer, volume_gib=9)) == (
        "source AMI ami-00000000000000001 -> ami-2 (debian-13-amd64-20261123)",
        "builder.volume_gib 8 -> 9",
    )
    keyed = replace(plan(OS), digest=digest_of(SOURCE.id, (OS,), 8, "alias/mine"))
    assert changes(last(OS), keyed) == ("aws.kms_key",)


def test_the_summary_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    before = manifest("2026.11.21.1", days=-1)
    on_builder = [one.model_copy(update={"name": one.name + ON_BUILDER}) for one in before.checks]
    after = manifest().model_copy(
        update={
            # GitHub strikes through what stands between two tildes, and a bar ends a cell.
            "packages": {**before.packages, "bash": "5.2.37-3~deb13u1~1", "tor|t": "1"},
            "users": ("root", "svc-arena"),
            "checks": (*before.checks, *on_builder),
        }
    )
    golden("summary.md", summary(after, before))


def test_a_first_image_and_one_that_is_the_same_say_so() -> None:
    assert "no manifest of an earlier image" in summary(manifest(), None)
    assert "The same source, steps, packages" in summary(manifest(), manifest("2026.11.21.1"))
    assert summary_of_reused("game-host-1", "ami-1", "us-east-1").startswith("## game-host-1\n")


def test_the_last_manifest_is_the_newest_of_that_image_and_target(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    first, second = manifest("2026.11.21.1", days=-1), manifest("2026.11.22.1")
    unproven = manifest("2026.11.23.1", days=1, checks=())
    for one in (first, second, unproven):
        (folder / f"{one.image.name}.json").write_text(to_json(one))
    (folder / "broken.json").write_text("{")
    assert last_manifest(tmp_path, "game-host", "local") == second
    assert last_manifest(tmp_path, "game-host", "local", before=second) == first
    assert last_manifest(tmp_path, "game-host", "local", before=first) is None
    assert last_manifest(tmp_path, "game-host", "aws") is None
    assert last_manifest(tmp_path, "web-host", "local") is None
