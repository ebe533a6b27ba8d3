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
        ("OSError: [Errno 28] No space left on device", "builder.volume_gib"),
        ("OSError: [Errno 28] No space left on device: '/srv/x'", "builder.volume_gib"),
        (
            " cannot copy extracted data for './usr/x' to '/usr/x.dpkg-new': failed to write (No "
            "space left on device)",
            "builder.volume_gib",
        ),
        (
            "E: Failed to fetch a  Error writing to file - write (28: No space left on device)",
            "builder.volume_gib",
        ),
        ("x.zip: it does not fit: 256 MiB of the disk must stay free", "builder.volume_gib"),
        ("not fetched: x: can't be written: No space left on device", "builder.volume_gib"),
        ("cp: error writing 'x': Disk quota exceeded", "a quota"),
        (
            "E: Release file for a is expired (invalid since 3h 2min 1s). Updates for this "
            "repository will not be applied.",
            "clock is ahead",
        ),
        ("curl: (60) SSL certificate problem: certificate has expired", "clock is ahead"),
        ("curl: (60) SSL certificate problem: certificate is not yet valid", "clock is behind"),
        (
            "E: Failed to fetch a  Certificate verification failed: The certificate is NOT trusted."
            " The certificate chain uses expired certificate.  Could not handshake: Error in the "
            "certificate verification. [IP: 192.0.2.1 443]",
            "clock is ahead",
        ),
        (
            "The certificate is NOT trusted. The certificate chain uses not yet valid certificate.",
            "clock is behind",
        ),
        ("ERROR: The certificate of 'a' has expired.", "clock is ahead"),
        ("ERROR: The certificate of 'a' is not yet activated.", "clock is behind"),
        (
            "curl: (7) Failed to connect to a port 443 after 12 ms: Could not connect to server",
            "its mirror",
        ),
        ("curl: (28) Operation timed out after 5001 milliseconds with 0 bytes received", "mirror"),
        ("curl: (28) Connection timed out after 1002 milliseconds", "its mirror"),
        ("curl: (6) Could not resolve host: a", "its mirror"),
        ("wget: unable to resolve host address 'a'", "its mirror"),
        ("Connecting to a|192.0.2.1|:80... failed: Connection refused.", "its mirror"),
        ("not fetched: x: https://a/x: no answer: timed out, 6 times in a row", "its mirror"),
        (
            "URLError: <urlopen error [Errno -3] Temporary failure in name resolution>",
            "its mirror",
        ),
        ("run.sh: fork: retry: Resource temporarily unavailable", "processes"),
        ("RuntimeError: can't start new thread", "processes"),
    ],
)
def test_a_known_reason_has_its_hint(line: str, told: str) -> None:
    hint = hint_for(failed("Reading package lists...", line, "cleaning up"))
    assert hint is not None
    assert told in hint


@pytest.mark.parametrize(
    "line",
    [
        "this game can't be written: see its fork, which has expired",
        "checking for fork... yes",
        "0 of 3 shards do not fit",
        "read: Resource temporarily unavailable",
        "test that a certificate expires: ok",
    ],
)
def test_another_line_has_none(line: str) -> None:
    assert hint_for(failed(line)) is None


def test_the_last_reason_counts() -> None:
    hint = hint_for(failed("E: Failed to fetch a", "tar: b: No space left on device"))
    assert hint is not None
    assert "disk is full" in hint


def test_one_that_was_killed_is_told_apart() -> None:
    assert "killed" in (hint_for(failed("working", exit_code=137)) or "")
    assert hint_for(failed("working", "E: nobody knows", exit_code=1)) is None
