"""A step that failed for a reason of the machine's is told what to do, from what its tools said."""

from __future__ import annotations

import pytest

from amibuild.errors import StepFailed
from amibuild.steps.hints import hint_for


def failed(*tail: str, exit_code: int = 1) -> StepFailed:
    reason = f"ended with exit code {exit_code}"
    return StepFailed(what="os", exit_code=exit_code, reason=reason, tail=tail)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("dpkg: error: failed to write '/var/x': No space left on device", "builder.volume_gib"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "builder.volume_gib"),
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (apt)",
            "DPkg::Lock::Timeout",
        ),
        (
            "E: Release file for a is not valid yet (invalid for another 3h 2min 1s).",
            "clock is behind",
        ),
        ("W: Failed to fetch a  Temporary failure resolving 'a'", "does not reach its mirror"),
        ("E: Failed to fetch a  Could not connect to a:80, connection timed out", "its mirror"),
        ("bash: fork: Cannot allocate memory", "builder.instance_types"),
    ],
)
def test_a_known_reason_has_its_hint(line: str, told: str) -> None:
    hint = hint_for(failed("Reading package lists...", line, "cleaning up"))
    assert hint is not None
    assert told in hint


def test_the_last_reason_counts() -> None:
    hint = hint_for(failed("E: Failed to fetch a", "tar: b: No space left on device"))
    assert hint is not None
    assert "disk is full" in hint


def test_one_that_was_killed_is_told_apart() -> None:
    assert "killed" in (hint_for(failed("working", exit_code=137)) or "")
    assert hint_for(failed("working", "E: nobody knows", exit_code=1)) is None
