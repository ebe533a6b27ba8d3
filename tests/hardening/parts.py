"""The parts of the step `hardening`, as the head of each and its checks tell them.

A part is files/parts/NAME.sh, with its checks in test_NAME.py. Its head says, each on a line:
`reason`, `controls` (CIS Debian 13, a Lynis test, ANSSI-BP-028), `proven`, and `packages` if any.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from amibuild.library.load import bundled_provisioners

HARDENING = bundled_provisioners() / "hardening"
HEAD = re.compile(r"# (reason|controls|proven|packages): (.+)")
LYNIS_TEST = re.compile(r"[A-Z]{3,4}-\d{4}|LYNIS")
CONTROL = re.compile(r"CIS \d+(\.\d+)+(-\d+(\.\d+)+)?|Lynis [A-Z]{3,4}-\d{4}|ANSSI R\d+")
# The fixture that keeps a check of the kernel from running where the kernel is another one's.
OWN_KERNEL = "own_kernel"


@dataclass(frozen=True)
class Part:
    """`controls` are spelled out, each with who asks for it: `CIS 1.5.1`, `Lynis KRNL-6000`."""

    name: str
    reason: str
    controls: tuple[str, ...]
    proven: str
    checks: tuple[str, ...]
    asks_own_kernel: bool

    @property
    def check_file(self) -> str:
        return f"test_{self.name.replace('-', '_')}.py"


def parts(folder: Path = HARDENING) -> tuple[Part, ...]:
    return tuple(read(path, folder) for path in sorted((folder / "files/parts").glob("*.sh")))


def read(path: Path, folder: Path) -> Part:
    """What is missing in the head is empty; a part without a check file has no checks."""
    head: dict[str, str] = {}
    for line in path.read_text().splitlines()[1:]:
        if not line.startswith("#"):
            break
        if found := HEAD.fullmatch(line):
            head[found[1]] = found[2]
    checks = folder / f"test_{path.stem.replace('-', '_')}.py"
    tests = _tests(checks.read_text()) if checks.exists() else {}
    return Part(
        name=path.stem,
        reason=head.get("reason", ""),
        controls=_controls(head.get("controls", "")),
        proven=head.get("proven", ""),
        checks=tuple(tests),
        asks_own_kernel=any(OWN_KERNEL in arguments for arguments in tests.values()),
    )


def explained(text: str) -> set[str]:
    """The tests of Lynis that README.md says why they stay open: the first column of its table."""
    table = text.partition("What stays open, and why:")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return {test for row in rows for test in LYNIS_TEST.findall(row)}


def _tests(text: str) -> dict[str, set[str]]:
    """Test -> the fixtures that it asks for."""
    return {
        node.name: {argument.arg for argument in node.args.args}
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def _controls(text: str) -> tuple[str, ...]:
    """`CIS 1.1, 1.2; ANSSI R9` -> each with its author in front."""
    found = []
    for group in filter(None, map(str.strip, text.split(";"))):
        author, _, ids = group.partition(" ")
        found += [f"{author} {one.strip()}" for one in ids.split(",")]
    return tuple(found)
