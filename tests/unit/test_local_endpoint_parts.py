"""The endpoint's small parts: faults, latencies, scripts, and what the agent makes of commands."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path

import pytest

from amibuild.errors import UsageError
from amibuild.local.faults import Fault, Faults
from amibuild.local.fleet import machine_size
from amibuild.local.machines.none import Latencies
from amibuild.local.machines.script import Outcome, read_script
from amibuild.local.overlay.commands import Command, agent_script


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("CreateImage:2=RequestLimitExceeded", Fault("CreateImage", 2, 2, "RequestLimitExceeded")),
        ("RunInstances:1=InternalError:after", Fault("RunInstances", 1, 1, "InternalError", True)),
        ("DescribeImages:3+=Unavailable", Fault("DescribeImages", 3, None, "Unavailable")),
        ("boot:1=Client.InternalError: x", Fault("boot", 1, 1, "Client.InternalError: x")),
        ("boot:*=no memory left", Fault("boot", 1, None, "no memory left")),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CreateImage", "such as CreateImage:2="),
        ("CreateImage=X", "such as CreateImage:2="),
        ("CreateImage:x=Y", "such as CreateImage:2="),
        (":1=X", "such as CreateImage:2="),
        ("", "such as CreateImage:2="),
        ("CreateImage[]:1=X", "such as CreateImage:2="),
        ("CreateImage:1=not a code", "such as CreateImage:2="),
        ("CreateImage:0=X", "counted from 1"),
        ("CreateImage:3-2=X", "counted from 1"),
        ("visible:moon=3", "one of instance, image"),
        ("agent:1=sometimes", "agent:1=never"),
        ("spot:1=soon", "spot:1=2.5"),
    ],
)
def test_what_is_no_fault_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        Fault.parse(text)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize("text", ["boot:1=no memory:after", "capture[vol]:1=full"])
def test_a_place_inside_has_no_words_and_no_after(text: str) -> None:
    with pytest.raises(UsageError):
        Fault.parse(text)


def test_faults_hit_the_occurrences_they_name() -> None:
    faults = Faults([Fault.parse(text) for text in ("A:2=second", "B:2+=later", "C:2-3=between")])
    seen = [fault.code if (fault := faults.next(what)) else "" for what in "AABBBACCCC"]
    assert seen == ["", "second", "", "later", "later", "", "", "between", "between", ""]


def test_words_pick_calls_and_are_asked_for_only_then() -> None:
    faults = Faults([Fault.parse("Run[large,zone-a]:2=full"), Fault.parse("Stop:1=no")])

    def never() -> set[str]:
        raise AssertionError("nobody needs them")

    assert faults.next("Stop", never) is not None
    both = {"large", "zone-a", "ami"}
    calls = (both, {"large"}, both, both)
    seen = [faults.next("Run", partial(set[str], words)) for words in calls]
    assert [fault is not None for fault in seen] == [False, False, True, False]


def test_what_is_seen_late_is_no_call() -> None:
    faults = Faults([Fault.parse("visible:instance=3")])
    assert faults.lags == {"instance": 3}
    assert faults.next("visible") is None


def test_latencies_are_read() -> None:
    assert Latencies.parse("run=8,ready=10,stop=22,image=68,terminate=35") == Latencies(
        run=8, ready=10, stop=22, image=68, terminate=35
    )
    assert Latencies.parse("") == Latencies()


@pytest.mark.parametrize("text", ["run", "run=", "walk=3", "run=fast", "run=-1"])
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Latencies.parse(text)


def test_a_script_file_answers_by_its_first_line_that_matches(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    lines = [
        {"match": "apt-get", "exit_code": 100, "stderr": "no network", "times": 1},
        {"match": "apt-get", "stdout": "done"},
        {"match": "^sleep", "seconds": 3},
        {"match": "bin/sh", "stdout": "the interpreter is not part of it"},
    ]
    file.write_text(json.dumps(lines))
    script = read_script(file)
    assert script("apt-get update") == Outcome(100, stderr="no network")
    assert script("apt-get update") == Outcome(0, stdout="done")
    assert script("#!/bin/sh\nset -e\nsleep 3") == Outcome(seconds=3)
    assert script("#!/bin/sh\ntrue") == Outcome()
    assert script("anything else") == Outcome()


def test_a_script_file_says_what_no_text_can(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    lines = [
        {"match": "bytes", "stdout_base64": "/wA="},
        {"match": "much", "stdout": "ab", "stdout_bytes": 5},
        {"match": "hang", "hang": True},
        {"match": "gone", "agent_gone": True},
    ]
    file.write_text(json.dumps(lines))
    script = read_script(file)
    assert script("bytes").stdout == b"\xff\x00"
    assert script("much").stdout == b"ababa"
    assert script("hang").seconds == float("inf")
    assert script("gone").agent_gone


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '[{"exit": 3}]',
        "7",
        '[{"match": "("}]',
        '[{"seconds": -1}]',
        '[{"stdout_base64": "!"}]',
        '[{"exit_code": 999}]',
        '[{"times": 0}]',
        '[{"stdout": "a", "stdout_base64": "YQ=="}]',
    ],
)
def test_a_script_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "script.json"
    file.write_text(text)
    with pytest.raises(UsageError):
        read_script(file)


def test_commands_are_lines_of_one_sh_script() -> None:
    assert agent_script(["set -e", "true"], "") == b"#!/bin/sh\nset -e\ntrue\n"


def test_a_script_may_name_its_interpreter() -> None:
    assert agent_script(["#!/usr/bin/python3\nprint(1)"], "") == b"#!/usr/bin/python3\nprint(1)\n"


def test_an_interpreter_and_a_folder_go_together() -> None:
    script = agent_script(["#!/usr/bin/python3\nprint(1)"], "/srv").decode()
    assert "cd /srv || exit 1" in script
    packed = script.split("<<'END'\n")[1].split("END\n")[0]
    assert base64.b64decode(packed) == b"#!/usr/bin/python3\nprint(1)\n"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("5", 5), ("172800", 172_800), ("4", 3600), ("172801", 3600), ("x", 3600)],
)
def test_an_execution_time_out_of_range_is_an_hour(asked: str, seconds: int) -> None:
    command = Command("doc", "", {"executionTimeout": [asked]}, 60, {}, [])
    assert command.execution_s == seconds


def test_a_machine_gets_no_more_than_the_host_can_give() -> None:
    cpus, memory = machine_size(192, 768 * 1024)
    assert 1 <= cpus < 192
    assert 512 <= memory <= 4096
    assert machine_size(1, 512) == (1, 512)


def test_a_wrong_script_is_told_in_plain_words(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('[{"match": "("}]')
    with pytest.raises(UsageError, match=r"0\.match: '\(' is no regular expression"):
        read_script(file)
