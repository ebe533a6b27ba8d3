"""What the checks found on a fresh machine, read from their JSON, and as JUnit XML for a CI."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amibuild.communicator.base import CommandResult, first_problem
from amibuild.errors import VerifyFailed
from amibuild.files import write_atomically
from amibuild.names import ON_BUILDER
from amibuild.outputs.manifest import Boot
from amibuild.secret import masked

# XML 1.0 can't hold these, not even escaped.
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


Measure = int | float | str | bool | None


@dataclass(frozen=True)
class CheckResult:
    """One check: `id` is `step/file::test`, `message` says why it did not pass.

    `measures` are what it recorded with pytest's `record_property`, such as a unit's exposure.
    """

    id: str
    step: str
    outcome: Outcome
    seconds: float
    message: str = ""
    measures: Mapping[str, Measure] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.outcome in (Outcome.FAILED, Outcome.ERROR)

    @property
    def reason(self) -> str:
        """The line of the message that says it: pytest marks it with an E."""
        lines = [line for line in self.message.splitlines() if line.strip()]
        marked = [line[1:].strip() for line in lines if line.startswith("E ")]
        return (marked or [line.strip() for line in lines[-1:]] or [self.outcome.value])[0]


@dataclass(frozen=True)
class VerifyReport:
    """How all checks ended. `seconds` is the whole program's time on the machine."""

    checks: tuple[CheckResult, ...]
    seconds: float
    python: str
    boot: Boot | None = None

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        return tuple(check for check in self.checks if check.failed)

    @property
    def passed(self) -> bool:
        """True when something was checked, and nothing failed. Skipped is not checked."""
        return not self.failures and any(c.outcome is Outcome.PASSED for c in self.checks)

    def measures(self, *, on_builder: bool = False) -> dict[str, dict[str, Measure]]:
        """Step -> what its checks measured on the fresh boot, or what they did on the builder."""
        found: dict[str, dict[str, Measure]] = {}
        for check in self.checks:
            if check.measures and check.id.endswith(ON_BUILDER) == on_builder:
                found.setdefault(check.step, {}).update(check.measures)
        return found


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _SentCheck(_Sent):
    id: str
    step: str
    outcome: Outcome
    seconds: float = Field(ge=0)
    message: str
    measures: dict[str, Measure]


class _SentReport(_Sent):
    """The JSON that checks.py prints."""

    version: int = Field(ge=1, le=1)
    python: str
    seconds: float = Field(ge=0)
    exit_code: int
    checks: tuple[_SentCheck, ...]
    boot: Boot | None = None


# pytest's exit codes: all passed, some failed, none found.
ENDED = frozenset({0, 1, 5})


def kept(result: CommandResult, path: Path) -> CommandResult:
    """The same, without secrets in what it handed back, once its log is in `path`.log and that in
    `path`.json: what a check saw on the machine goes to people from there."""
    write_atomically(path.with_suffix(".log"), result.log)
    plain = result.result.decode(errors="replace")
    shown = masked(plain)
    if shown:
        write_atomically(path.with_suffix(".json"), shown)
    return result if shown == plain else replace(result, result=shown.encode())


def could_not_run(what: str, result: CommandResult) -> VerifyFailed:
    return VerifyFailed(
        f"the {what} could not run: exit code {result.exit_code}", failures=result.tail
    )


def parse_report(sent: bytes | str) -> VerifyReport:
    """The report that the machine sent.

    Raises: VerifyFailed when it is not one, or when pytest itself could not go on.
    """
    try:
        report = _SentReport.model_validate_json(sent)
    except ValidationError as error:
        raise VerifyFailed(
            f"the machine's report can't be read: {first_problem(error)}",
            hint="the log of the checks has all that they printed",
        ) from error
    checks = tuple(
        CheckResult(c.id, c.step, c.outcome, c.seconds, c.message, c.measures)
        for c in report.checks
    )
    found = VerifyReport(checks, report.seconds, report.python, report.boot)
    if report.exit_code not in ENDED and not found.failures:
        raise VerifyFailed(f"the checks broke off: pytest ended with {report.exit_code}")
    return found


def junit_xml(report: VerifyReport, *, suite: str, host: str) -> str:
    """JUnit XML as CI systems read it: one suite for each step.

    `suite` names the whole, such as the image; `host` the machine that was checked.
    """
    root = ET.Element("testsuites", {"name": _clean(suite), **_counts(report.checks)})
    for step in dict.fromkeys(check.step for check in report.checks):
        checks = [check for check in report.checks if check.step == step]
        names = {"name": _clean(step), "hostname": _clean(host)}
        element = ET.SubElement(root, "testsuite", {**names, **_counts(checks)})
        for check in checks:
            _add_case(element, check)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _counts(checks: Iterable[CheckResult]) -> dict[str, str]:
    outcomes = [check.outcome for check in checks]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count(Outcome.FAILED)),
        "errors": str(outcomes.count(Outcome.ERROR)),
        "skipped": str(outcomes.count(Outcome.SKIPPED)),
        "time": f"{sum(check.seconds for check in checks):.3f}",
    }


def _add_case(suite: ET.Element, check: CheckResult) -> None:
    file, _, name = check.id.partition("::")
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_clean(file.removesuffix(".py").replace("/", ".")),
        name=_clean(name or file),
        time=f"{check.seconds:.3f}",
    )
    if check.measures:
        properties = ET.SubElement(case, "properties")
        for key, value in check.measures.items():
            ET.SubElement(properties, "property", name=_clean(key), value=_clean(str(value)))
    kinds = {Outcome.FAILED: "failure", Outcome.ERROR: "error", Outcome.SKIPPED: "skipped"}
    if check.outcome in kinds:
        element = ET.SubElement(case, kinds[check.outcome], message=_clean(check.reason))
        element.text = _clean(check.message)


def _clean(text: str) -> str:
    return NOT_IN_XML.sub("?", text)
