"""The story on stderr: plain in a pipe, live on a terminal, and never in the way of the work."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO, cast

import pytest

from amibuild import proc
from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    HostError,
    Leftover,
    LeftoverError,
    Problem,
    RecipeError,
    VerifyFailed,
)
from amibuild.journal import (
    BakeEnded,
    BakeStarted,
    Created,
    Intended,
    Kept,
    LeftBehind,
    Noted,
    Outcome,
    Removed,
    ResourceKind,
    Shown,
    StepEnded,
    StepFailed,
    StepStarted,
)
from amibuild.ui import LiveView, Plain, open_story, quiet
from amibuild.wait import Waiting
from amibuild.wording import duration_text

REGION = "us-east-1"
INSTANCE = ResourceKind.INSTANCE


class Ticks:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 10, 15, tzinfo=UTC) + timedelta(seconds=self.seconds)


def a_bake() -> list[tuple[float, Shown]]:
    """Events of a short bake that fails, each with the seconds that pass before it."""
    return [
        (
            0,
            BakeStarted(
                bake_id="20261122-101500-a1b2c3",
                image="game-host",
                digest="3f" * 32,
                target="local",
                region=REGION,
                source_ami="ami-1",
                recipe="amibuild.toml",
                pid=7,
                version="0.1.0",
            ),
        ),
        (0, StepStarted(step="launch", what="a builder from ami-1")),
        (0, Intended(kind=INSTANCE, name="b", token="t", region=REGION)),
        (1, Created(kind=INSTANCE, id="i-0abc", token="t", region=REGION)),
        (0, Waiting("i-0abc", "pending", 0.0, 300)),
        (1, Waiting("i-0abc", "pending", 1.0, 300)),
        (1, Waiting("i-0abc", "running", 2.0, 300)),
        (0, StepEnded(step="launch", seconds=3.0)),
        (0, StepStarted(step="os", what="updates and base packages")),
        (0, Noted(text="a note")),
        (62, StepFailed(step="os", seconds=62.4, error="os: ended with exit code 7\nmore")),
        (1, Removed(kind=INSTANCE, id="i-0abc", region=REGION)),
        (
            0,
            LeftBehind(
                kind=ResourceKind.SECURITY_GROUP,
                id="sg-1",
                region=REGION,
                reason="in use",
                command="aws ec2 delete-security-group --group-id sg-1",
            ),
        ),
        (0, BakeEnded(outcome=Outcome.FAILED, seconds=66.0)),
    ]


def its_error() -> AmibuildError:
    error = CommandFailed(
        what="os",
        exit_code=7,
        reason="ended with exit code 7",
        tail=[f"line {n}" for n in range(30)],
        log=Path(".amibuild/logs/b/os.log"),
        hint="look at the log",
    )
    error.leftovers = (
        Leftover("security-group", "sg-1", REGION, "in use", "aws ec2 delete-security-group …"),
    )
    return error


def plain(clock: Ticks) -> tuple[Plain, io.StringIO]:
    stream = io.StringIO()
    return Plain(stream, now=clock.now, monotonic=clock.monotonic), stream


def test_the_plain_story_of_a_failed_bake_is_the_golden_one(
    golden: Callable[[str, str], None],
) -> None:
    clock = Ticks()
    story, stream = plain(clock)
    for pause, shown in a_bake():
        clock.seconds += pause
        story.show(shown)
    story.failed(its_error())
    golden("story.txt", stream.getvalue())


def test_a_wait_is_told_when_its_state_changes_or_after_ten_seconds() -> None:
    clock = Ticks()
    story, stream = plain(clock)
    for second in range(25):
        clock.seconds = second
        story.show(Waiting("i-1", "pending", second, 300))
    story.show(Waiting("i-1", "running", 25, 300))
    told = [line.split("  ")[-1] for line in stream.getvalue().splitlines()]
    assert told == ["0s of 300s", "10s of 300s", "20s of 300s", "25s of 300s"]


def test_two_waits_at_once_do_not_silence_each_other() -> None:
    story, stream = plain(Ticks())
    for _ in range(3):
        story.show(Waiting("i-1", "pending", 0, 300))
        story.show(Waiting("i-2", "pending", 0, 300))
    assert len(stream.getvalue().splitlines()) == 2


def test_every_problem_of_a_recipe_has_a_line_of_its_own() -> None:
    story, stream = plain(Ticks())
    path = Path("amibuild.toml")
    story.failed(RecipeError([Problem(path, 3, "a", "is wrong"), Problem(path, 9, "b", "is odd")]))
    assert stream.getvalue().splitlines() == [
        "amibuild.toml:3: a: is wrong",
        "amibuild.toml:9: b: is odd",
    ]


def test_failed_checks_and_notes_are_told() -> None:
    story, stream = plain(Ticks())
    error = VerifyFailed("ami-1 failed one check", failures=["test_a\nassert 1 == 2"])
    error.add_note("its console: console.log")
    story.failed(error)
    assert stream.getvalue().splitlines() == [
        "failed: ami-1 failed one check",
        "  | test_a",
        "  | assert 1 == 2",
        "note: its console: console.log",
    ]


def test_leftovers_alone_are_told_once_with_their_commands() -> None:
    story, stream = plain(Ticks())
    story.failed(LeftoverError([Leftover("volume", "vol-1", REGION, "busy", "aws delete vol-1")]))
    text = stream.getvalue()
    assert text.count("vol-1 in us-east-1: busy") == 1
    assert "    aws delete vol-1\n" in text
    assert text.endswith("hint: amibuild reap tries again\n")


def test_what_was_kept_is_told_with_the_ways_to_go_on_and_to_remove_it() -> None:
    story, stream = plain(Ticks())
    started = a_bake()[0][1]
    assert isinstance(started, BakeStarted)
    story.show(
        started.model_copy(
            update={
                "recipe": "/my games/other.toml",
                "target": "aws",
                "overrides": ("provision.services=[]",),
            }
        )
    )
    story.show(Kept(kind=INSTANCE, id="i-1", region=REGION, why="--on-error keep"))
    error = HostError("broken")
    error.leftovers = (Leftover("volume", "vol-1", REGION, "in use", "aws …"),)
    story.failed(error)
    reap = "amibuild reap '/my games/other.toml' --target aws"
    resume = (
        "amibuild bake '/my games/other.toml' --target aws --set 'provision.services=[]' "
        "--on-error keep --resume 20261122-101500-a1b2c3"
    )
    assert (
        f"kept: instance i-1\n    `{resume}` goes on from there, `{reap} --kept` removes it\n"
    ) in stream.getvalue()
    assert f"hint: `{reap}` tries again\n" in stream.getvalue()


@pytest.mark.parametrize("columns", ["0", "1", "2", "7", "80", "100000"])
@pytest.mark.parametrize("color", [True, False])
def test_the_live_view_stands_any_width(
    monkeypatch: pytest.MonkeyPatch, columns: str, color: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", "3")
    stream = io.StringIO()
    view = LiveView(stream, color=color)
    for _, shown in a_bake():
        view.show(shown)
    view.failed(its_error())
    view.close()
    assert "aws ec2 delete-security-group …" in stream.getvalue()
    assert ("\x1b[1;31m" in stream.getvalue()) is color


def test_the_live_view_shows_what_is_waited_for_and_for_how_long() -> None:
    clock = Ticks()
    view = LiveView(io.StringIO(), color=False, monotonic=clock.monotonic)
    view.show(StepStarted(step="launch", what="a builder\nsecond line"))
    view.show(Waiting("i-0abc", "running", 40.0, 300))
    clock.seconds = 1.0
    shown = str(view.render())
    view.close()
    assert shown == "launch  1.0s  a builder\n  i-0abc  running  41s of 300s"


def test_a_wait_that_ended_without_a_word_is_not_shown_for_ever() -> None:
    clock = Ticks()
    view = LiveView(io.StringIO(), color=False, monotonic=clock.monotonic)
    view.show(Waiting("i-0abc", "running", 40.0, 300))
    clock.seconds = 21.0
    shown = str(view.render())
    view.close()
    assert shown == ""


def test_a_wait_ends_with_what_was_waited_for() -> None:
    view = LiveView(io.StringIO(), color=False, monotonic=Ticks().monotonic)
    view.show(Waiting("i-0abc to terminate", "terminated", 4.0, 300))
    view.show(Waiting("sg-1 to be free", "in use", 4.0, 300))
    view.show(Removed(kind=INSTANCE, id="i-0abc", region=REGION))
    shown = str(view.render())
    view.close()
    assert shown == "  sg-1 to be free  in use  4s of 300s"


def test_without_colour_nothing_is_bold_or_dim_either() -> None:
    stream = io.StringIO()
    view = LiveView(stream, color=False)
    for _, shown in a_bake():
        view.show(shown)
    view.failed(its_error())
    view.close()
    assert re.findall(r"\x1b\[[0-9;]*m", stream.getvalue()) == []


def test_brackets_are_text_and_no_markup() -> None:
    stream = io.StringIO()
    view = LiveView(stream, color=False)
    view.show(Noted(text="[bold]x[/nope] [/] \\[a]"))
    view.close()
    assert "[bold]x[/nope] [/] \\[a]" in stream.getvalue()


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


class Closed(Gone):
    def write(self, text: str) -> int:
        raise ValueError("I/O operation on closed file")

    def isatty(self) -> bool:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("broken", [Gone, Closed])
@pytest.mark.parametrize("live", [True, False])
def test_a_stream_that_went_away_does_not_stop_the_work(
    broken: type[io.StringIO], live: bool
) -> None:
    stream = quiet(broken())
    story = LiveView(stream, color=True) if live else Plain(stream)
    for _, shown in a_bake():
        story.show(shown)
    story.failed(its_error())
    if isinstance(story, LiveView):
        story.close()


def test_a_stream_of_another_encoding_gets_what_it_can_take() -> None:
    raw = io.BytesIO()
    stream = quiet(cast(TextIO, io.TextIOWrapper(raw, encoding="ascii")))
    Plain(stream).say("grüße …")
    stream.flush()
    assert raw.getvalue().endswith(b"gr\\xfc\\xdfe \\u2026\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (59.94, "59.9s"),
        (59.96, "1m00s"),
        (119.9, "2m00s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m00s"),
    ],
)
def test_no_part_of_a_duration_is_60(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def on_a_terminal(environ: dict[str, str]) -> type:
    """The class that tells the story when stderr is a terminal."""
    ours, theirs = pty.openpty()
    before = sys.stderr
    try:
        with os.fdopen(theirs, "w") as stream:
            sys.stderr = stream
            with open_story(color=True, environ=environ) as story:
                return type(story)
    finally:
        sys.stderr = before
        os.close(ours)


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"TERM": "xterm"}, LiveView),
        ({"TERM": "dumb"}, Plain),
        ({}, Plain),
        ({"TERM": "xterm", "CI": "true"}, Plain),
    ],
)
def test_the_view_is_live_only_on_a_terminal_that_can(environ: dict[str, str], kind: type) -> None:
    assert on_a_terminal(environ) is kind


def test_in_a_pipe_the_story_is_plain() -> None:
    with open_story(color=True, environ={"TERM": "xterm"}) as story:
        assert isinstance(story, Plain)


def test_a_result_whose_reader_has_left_is_no_error() -> None:
    code = (
        "import os, sys\n"
        "from amibuild.ui import print_result\n"
        "read, write = os.pipe()\n"
        "os.dup2(write, 1); os.close(read); os.close(write)\n"
        "print_result('x' * 100_000)\n"
        "print_result('again')\n"
        "sys.stderr.write('still here')\n"
    )
    done = proc.run([sys.executable, "-c", code])
    assert done.stderr == b"still here"
