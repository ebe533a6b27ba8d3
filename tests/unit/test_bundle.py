"""The bundle runs checks with nothing but Python, and tells how each ended."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest

from amibuild import proc
from amibuild.library.step import BuildStep, StepFile, StepKind
from amibuild.verify.bundle import build_bundle
from amibuild.verify.report import CheckResult, Outcome, VerifyReport, parse_report

EVERY_OUTCOME = """
import pytest

def test_passes(host, facts):
    assert host.run("echo %s", facts["word"]).stdout == "it's here\\n"

def test_fails(facts):
    assert facts["word"] == "gone", "because of this"

@pytest.fixture
def broken():
    raise RuntimeError("in the fixture")

def test_errs(broken):
    pass

def test_ends_badly(tmp_path, request):
    request.addfinalizer(lambda: 1 / 0)

@pytest.mark.skip(reason="not today")
def test_is_skipped():
    pass

@pytest.mark.xfail
def test_is_known_to_fail():
    assert False

@pytest.mark.parametrize("n", [1, 2])
def test_runs_for_each(n, monkeypatch):
    assert n == pytest.approx(n)

def test_measures(record_property):
    record_property("exposure", 1.1)

def test_says_much():
    assert False, "x" * 20_000 + " the end"

def test_raises():
    with pytest.raises(ValueError, match="x"):
        int("x")
"""


def step(name: str, facts: dict[str, str] | None = None, **checks: str) -> BuildStep:
    return BuildStep(
        name=name,
        kind=StepKind.PROVISIONER,
        purpose="A step.",
        script="",
        timeout_s=60,
        checks=tuple(
            StepFile(f"{file}.py", dedent(text).encode()) for file, text in checks.items()
        ),
        facts=facts or {},
    )


def run(tmp_path: Path, *steps: BuildStep) -> tuple[int, str]:
    """Exit code and output of the bundle, run with no package but Python's own."""
    path = tmp_path / "checks.pyz"
    path.write_bytes(build_bundle(steps))
    done = proc.run([sys.executable, "-I", "-S", path], check=False, timeout_s=60)
    return done.exit_code, done.text


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> VerifyReport:
    steps = (
        # A step called like a module of Python's must not take its place.
        step("os", {"word": "it's here"}, test_all=EVERY_OUTCOME),
        step("other-one", {"word": "other"}, test_all="def test_x(facts): assert facts['word']"),
    )
    exit_code, text = run(tmp_path_factory.mktemp("bundle"), *steps)
    assert exit_code == 1
    return parse_report(text)


def check(report: VerifyReport, name: str, step: str = "os") -> CheckResult:
    (found,) = (c for c in report.checks if c.id == f"{step}/test_all.py::{name}")
    assert found.step == step
    return found


def test_each_check_has_its_outcome(report: VerifyReport) -> None:
    assert {c.id.partition("::")[2]: c.outcome.value for c in report.checks} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_errs": "error",
        "test_ends_badly": "error",
        "test_is_skipped": "skipped",
        "test_is_known_to_fail": "skipped",
        "test_runs_for_each[1]": "passed",
        "test_runs_for_each[2]": "passed",
        "test_measures": "passed",
        "test_says_much": "failed",
        "test_raises": "passed",
        "test_x": "passed",
    }


def test_each_step_sees_its_own_facts(report: VerifyReport) -> None:
    assert check(report, "test_passes").outcome is Outcome.PASSED
    assert check(report, "test_x", "other-one").outcome is Outcome.PASSED


def test_a_failure_says_why_and_where(report: VerifyReport) -> None:
    failed = check(report, "test_fails")
    assert "because of this" in failed.message
    assert 'assert facts["word"] == "gone"' in failed.message
    assert "'it\\'s here' == 'gone'" in failed.message or "it's here" in failed.message
    assert "os/test_all.py:8: AssertionError" in failed.message


def test_a_broken_fixture_is_an_error_and_no_failure(report: VerifyReport) -> None:
    assert "RuntimeError: in the fixture" in check(report, "test_errs").message


def test_a_bad_end_counts_also_when_the_check_itself_passed(report: VerifyReport) -> None:
    assert "ZeroDivisionError" in check(report, "test_ends_badly").message


def test_a_skipped_check_says_why(report: VerifyReport) -> None:
    assert "not today" in check(report, "test_is_skipped").message


def test_a_long_message_keeps_its_end(report: VerifyReport) -> None:
    message = check(report, "test_says_much").message
    assert len(message) < 4100
    assert "the end" in message


def test_what_a_check_measured_is_kept(report: VerifyReport) -> None:
    assert report.measures() == {"os": {"exposure": 1.1}}


def test_a_check_that_is_no_python_is_an_error(tmp_path: Path) -> None:
    exit_code, text = run(tmp_path, step("os", test_all="import nowhere\n"))
    (found,) = parse_report(text).checks
    assert exit_code != 0
    assert (found.id, found.outcome) == ("os/test_all.py", Outcome.ERROR)
    assert "No module named 'nowhere'" in found.message


def test_no_checks_are_no_proof(tmp_path: Path) -> None:
    exit_code, text = run(tmp_path, step("os"))
    assert exit_code == 5
    assert not parse_report(text).passed


def test_checks_that_all_pass_are_a_proof(tmp_path: Path) -> None:
    exit_code, text = run(tmp_path, step("os", test_all="def test_x(): pass\n"))
    assert exit_code == 0
    assert parse_report(text).passed


def test_what_is_marked_last_runs_behind_the_checks_of_all_steps(tmp_path: Path) -> None:
    slow = "import pytest\n@pytest.mark.last\ndef test_slow(): pass\ndef test_quick(): pass\n"
    _, text = run(tmp_path, step("a", test_a=slow), step("b", test_b="def test_b(): pass"))
    ran = [check.id for check in parse_report(text).checks]
    assert ran == ["a/test_a.py::test_quick", "b/test_b.py::test_b", "a/test_a.py::test_slow"]


# This host's own may be older: Debian 12 has one whose tarfile knows no filters.
PYTHONS = [sys.executable, *filter(None, [shutil.which("python3", path="/usr/bin")])]


@pytest.mark.parametrize("python", PYTHONS)
def test_what_a_check_prints_stays_out_of_the_report_file(tmp_path: Path, python: str) -> None:
    path, out = tmp_path / "checks.pyz", tmp_path / "out.json"
    path.write_bytes(build_bundle([step("os", test_all="def test_x(): print('noise')\n")]))
    done = proc.run([python, "-I", "-S", path, "--json", out])
    assert "noise" in done.text
    assert json.loads(out.read_text())["checks"][0]["outcome"] == "passed"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "checks.pyz"
    path.write_bytes(build_bundle([step("os", test_all="def test_x(): pass\n")]))
    (tmp_path / "temporary").mkdir()
    proc.run([sys.executable, "-I", "-S", path], env={"TMPDIR": str(tmp_path / "temporary")})
    # tmp_path of the checks themselves would be here too: none of these asked for one.
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_same_steps_give_the_same_bundle_in_every_process() -> None:
    program = (
        "import hashlib; from amibuild.verify.bundle import build_bundle;"
        "print(hashlib.sha256(build_bundle([])).hexdigest())"
    )
    other = proc.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": "7"}).text.strip()
    assert other == hashlib.sha256(build_bundle([])).hexdigest()


def test_it_is_small_enough_to_travel_in_pieces() -> None:
    """Four commands of 45 KB. All of pytest, testinfra and pygments would be 1.4 MB."""
    assert len(build_bundle([])) < 4 * 45_000


def test_it_holds_a_program_and_two_archives() -> None:
    with zipfile.ZipFile(io.BytesIO(build_bundle([]))) as archive:
        assert archive.namelist() == ["__main__.py", "lib.tar.xz", "steps.tar.xz"]
