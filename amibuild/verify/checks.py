"""The program that runs the checks on a machine booted from the image. It runs there, not here.

bundle.py packs it with pytest and testinfra into checks.pyz:

    python3 checks.pyz [--json FILE]

It needs nothing from the machine but Python 3.11, and prints one JSON object, or writes it; its
shape is VerifyReport in report.py. The exit code is 0 when all passed, 1 when some did not, 5
when there were none. What is not needed is left out, for on a machine without KVM importing one
module takes tens of milliseconds.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import pytest
import testinfra.host

# What a check prints goes to the log. These stay: assertion, fixtures, helpconfig, main, mark,
# monkeypatch, python, runner, skipping, tmpdir.
LEFT_OUT = """
    cacheprovider capture debugging doctest faulthandler junitxml legacypath logging pastebin
    recwarn setuponly setupplan stepwise subtests terminal threadexception unittest
    unraisableexception warnings
"""
MESSAGE_LIMIT = 4000
# pytest names modules after their folders, and one called `os` would take the place of Python's.
FOLDER = "step-"


class Checks:
    """The plugin that gives each check its host and facts, and writes down how it ended."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._facts: dict[str, Any] = json.loads((root / "facts.json").read_text())
        self._found: dict[str, dict[str, Any]] = {}

    @pytest.fixture
    def host(self) -> testinfra.host.Host:
        """This machine, as testinfra sees it."""
        return testinfra.host.get_host("local://")

    @pytest.fixture
    def facts(self, request: pytest.FixtureRequest) -> Any:
        """What the step says about itself."""
        folder = request.path.relative_to(self._root).parts[0]
        return self._facts[folder.removeprefix(FOLDER)]

    @pytest.fixture(scope="session")
    def own_kernel(self) -> None:
        """For a check of the kernel: in a container, whose kernel is the host's, it is skipped."""
        asked = testinfra.host.get_host("local://").run("systemd-detect-virt --container")
        if asked.rc == 0:
            pytest.skip(f"{asked.stdout.strip()}: a container's kernel is its host's")

    @pytest.fixture
    def record_property(self, request: pytest.FixtureRequest) -> Callable[[str, object], None]:
        """Keeps a measured value in the report. pytest's own belongs to its XML report."""

        def record(name: str, value: object) -> None:
            request.node.user_properties.append((name, value))

        return record

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """What is marked `last` runs behind all others, for it takes long or leaves traces."""
        items.sort(key=lambda item: item.get_closest_marker("last") is not None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        check = self._check(report.nodeid)
        check["seconds"] = round(check["seconds"] + report.duration, 3)
        check["measures"] = dict(report.user_properties)
        if report.failed:
            self._fail(check, "failed" if report.when == "call" else "error", report.longreprtext)
        elif report.skipped and check["outcome"] == "passed":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            check["outcome"], check["message"] = "skipped", reason

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._fail(self._check(report.nodeid), "error", report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self._fail(self._check("pytest"), "error", str(excrepr))

    def ended(self) -> list[dict[str, Any]]:
        return list(self._found.values())

    def _check(self, nodeid: str) -> dict[str, Any]:
        id_ = nodeid.removeprefix(FOLDER)
        fresh = {
            "id": id_,
            "step": id_.partition("/")[0],
            "outcome": "passed",
            "seconds": 0.0,
            "message": "",
            "measures": {},
        }
        return self._found.setdefault(id_, fresh)

    def _fail(self, check: dict[str, Any], outcome: str, message: str) -> None:
        """Keeps the end of the message, since a failed check says last what was wrong."""
        shown = message.replace(f"{self._root}/", "").replace(FOLDER, "")
        if len(shown) > MESSAGE_LIMIT:
            shown = "..." + shown[-MESSAGE_LIMIT:]
        check["outcome"], check["message"] = outcome, shown


def boot() -> dict[str, Any] | None:
    """How long this machine's boot took in userspace; None without systemd, or while it goes on."""
    names = ("UserspaceTimestampMonotonic", "FinishTimestampMonotonic", "Virtualization")
    host = testinfra.host.get_host("local://")
    shown = host.run("systemctl show --property=%s", ",".join(names)).stdout.splitlines()
    found = dict(line.split("=", 1) for line in shown if "=" in line)
    began, ended, machine = (found.get(name, "") for name in names)
    if not (began.isdigit() and ended.isdigit() and 0 < int(began) < int(ended)):
        return None
    # Both count microseconds of the same clock, which in a container is the host's.
    return {"seconds": round((int(ended) - int(began)) / 1e6, 2), "machine": machine or "none"}


def run(root: Path, started: float) -> dict[str, Any]:
    """`started` is time.monotonic() of the program's start."""
    checks = Checks(root)
    arguments = ["--rootdir", str(root), "-c", os.devnull, "--import-mode=importlib"]
    # One broken file must not keep the other checks from running.
    arguments.append("--continue-on-collection-errors")
    arguments += ["-o", "markers=last: runs behind all others"]
    for plugin in LEFT_OUT.split():
        arguments += ["-p", f"no:{plugin}"]
    exit_code = int(pytest.main([*arguments, str(root)], plugins=[checks]))
    return {
        "version": 1,
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - started, 3),
        "exit_code": exit_code,
        "checks": checks.ended(),
        "boot": boot(),
    }


def main(root: str, started: float) -> int:
    result = run(Path(root), started)
    text = json.dumps(result, separators=(",", ":"), default=str)
    if sys.argv[1:2] == ["--json"]:
        Path(sys.argv[2]).write_text(text)
    else:
        sys.stdout.write(text + "\n")
    return int(result["exit_code"])
