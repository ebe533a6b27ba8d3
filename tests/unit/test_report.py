"""What a machine sends is read strictly, and told in the form that a CI reads."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from amibuild.errors import VerifyFailed
from amibuild.names import ON_BUILDER
from amibuild.outputs.manifest import Boot
from amibuild.verify.report import (
    CheckResult,
    Outcome,
    VerifyReport,
    junit_xml,
    parse_report,
)
from tests.conftest import Golden

FAILED = """\
host = <testinfra.host.Host local>

    def test_x(host):
>       assert host.run("x").rc == 0
E       AssertionError: assert 1 == 0
E        +  where 1 = <CommandResult>.rc

os/test_os.py:4: AssertionError"""


def sent(**changes: Any) -> str:
    check = {
        "id": "os/test_os.py::test_x",
        "step": "os",
        "outcome": "passed",
        "seconds": 0.25,
        "message": "",
        "measures": {"exposure": 1.1},
    }
    whole = {"version": 1, "python": "3.13.5", "seconds": 1.5, "exit_code": 0, "checks": [check]}
    return json.dumps({**whole, **changes})


def result(outcome: Outcome, name: str = "test_x", message: str = "") -> CheckResult:
    return CheckResult(f"os/test_os.py::{name}", "os", outcome, 0.25, message)


def report(*checks: CheckResult) -> VerifyReport:
    return VerifyReport(checks, 1.5, "3.13.5")


def test_a_report_is_read_as_it_was_sent() -> None:
    assert parse_report(sent()) == report(
        CheckResult("os/test_os.py::test_x", "os", Outcome.PASSED, 0.25, measures={"exposure": 1.1})
    )


def test_the_boot_is_read_where_it_was_measured() -> None:
    found = parse_report(sent(boot={"seconds": 7.25, "machine": "amazon"}))
    assert found.boot == Boot(seconds=7.25, machine="amazon")
    assert parse_report(sent(boot=None)).boot is None


@pytest.mark.parametrize(
    "text",
    ["", "Traceback (most recent call last):", "{}", "[]", sent()[:-10], sent(version=2)],
)
def test_what_is_no_report_proves_nothing(text: str) -> None:
    with pytest.raises(VerifyFailed, match="report can't be read"):
        parse_report(text)


def test_an_unknown_outcome_is_not_taken_for_a_pass() -> None:
    with pytest.raises(VerifyFailed, match=r"checks\.0\.outcome"):
        parse_report(sent().replace('"passed"', '"xpassed"'))


@pytest.mark.parametrize("exit_code", [2, 3, 4, -9])
def test_checks_that_broke_off_prove_nothing(exit_code: int) -> None:
    with pytest.raises(VerifyFailed, match=f"pytest ended with {exit_code}"):
        parse_report(sent(exit_code=exit_code))


def test_checks_that_broke_off_with_a_reason_give_it() -> None:
    text = sent(exit_code=3).replace('"passed"', '"error"')
    (failure,) = parse_report(text).failures
    assert failure.outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("outcomes", "passed"),
    [
        ([Outcome.PASSED], True),
        ([Outcome.PASSED, Outcome.SKIPPED], True),
        ([Outcome.PASSED, Outcome.FAILED], False),
        ([Outcome.PASSED, Outcome.ERROR], False),
        ([Outcome.SKIPPED], False),
        ([], False),
    ],
)
def test_it_passed_when_something_was_checked_and_nothing_failed(
    outcomes: list[Outcome], passed: bool
) -> None:
    assert report(*(result(outcome) for outcome in outcomes)).passed is passed


def test_the_reason_is_the_line_that_pytest_marks() -> None:
    assert result(Outcome.FAILED, message=FAILED).reason == "AssertionError: assert 1 == 0"


def test_a_message_without_a_mark_gives_its_last_line() -> None:
    assert result(Outcome.ERROR, message="one\ntwo\n").reason == "two"


def test_no_message_gives_the_outcome() -> None:
    assert result(Outcome.ERROR).reason == "error"


def test_measures_are_told_by_step() -> None:
    one = CheckResult("a/t.py::x", "a", Outcome.PASSED, 0.1, measures={"m": 1})
    two = CheckResult("a/t.py::y", "a", Outcome.PASSED, 0.1, measures={"n": "z"})
    three = CheckResult("b/t.py::y", "b", Outcome.PASSED, 0.1)
    assert report(one, two, three).measures() == {"a": {"m": 1, "n": "z"}}


def test_measures_of_the_builder_are_told_apart() -> None:
    fresh = CheckResult("a/t.py::x", "a", Outcome.PASSED, 0.1, measures={"m": 1})
    before = CheckResult(f"a/t.py::x{ON_BUILDER}", "a", Outcome.PASSED, 0.1, measures={"m": 2})
    assert report(before, fresh).measures() == {"a": {"m": 1}}
    assert report(fresh, before).measures(on_builder=True) == {"a": {"m": 2}}


def test_junit_xml_is_what_a_ci_reads(golden: Golden) -> None:
    whole = report(
        result(Outcome.PASSED),
        result(Outcome.FAILED, "test_<&>", FAILED),
        result(Outcome.ERROR, "test_errs", "RuntimeError: \x1b[31mred\x00"),
        result(Outcome.SKIPPED, "test_skipped", "Skipped: not today"),
        CheckResult(
            "minetest/test_every_service.py::test_sandbox",
            "minetest",
            Outcome.PASSED,
            2.0,
            measures={"exposure": 1.1},
        ),
    )
    text = junit_xml(whole, suite="game-host-2026.11.22.1", host="i-0123456789abcdef0")
    golden("junit.xml", text)
    suites = ET.fromstring(text)
    assert suites.attrib["tests"] == "5"
    assert [suite.attrib["name"] for suite in suites] == ["os", "minetest"]
