"""Each part of the hardening has a reason, a check and a control, and says where it is proven."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening.parts import CONTROL, HARDENING, Part, parts, read
from tests.hardening.table import README, refreshed, table

PARTS = parts()
PROVEN = {"fresh boot": False, "own kernel": True}
# Checks that are of the whole step, not of one part.
WHOLE = {"test_hardening.py", "test_lynis.py", "test_second_opinion.py"}


def wrongs(part: Part) -> list[str]:
    """What a part lacks."""
    found = []
    if not part.reason:
        found.append("has no reason")
    if not part.controls:
        found.append("answers no control")
    found += [f"{one} is no control" for one in part.controls if not CONTROL.fullmatch(one)]
    if not part.checks:
        found.append(f"has no check in {part.check_file}")
    if PROVEN.get(part.proven) is not part.asks_own_kernel:
        found.append(f"says it is proven on {part.proven!r}, and its checks say otherwise")
    return found


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_has_all_that_it_needs(part: Part) -> None:
    assert wrongs(part) == []


def test_every_part_is_in_the_table_and_the_table_is_in_the_docs() -> None:
    assert len(PARTS) > 15
    rows = table(PARTS).splitlines()[2:]
    assert [row.split("]")[0].removeprefix("| [") for row in rows] == [p.name for p in PARTS]
    assert refreshed(README.read_text()) == README.read_text()


def test_no_check_belongs_to_a_part_that_is_gone() -> None:
    files = {path.name for path in HARDENING.glob("test_*.py")} - WHOLE
    assert files == {part.check_file for part in PARTS}


BROKEN = {
    "has no reason": ("# reason: it must\n", ""),
    "answers no control": ("# controls: CIS 1.2; ANSSI R9\n", ""),
    "CIS one is no control": ("CIS 1.2", "CIS one"),
    "has no check in test_one.py": ("def test_it(host): ...", ""),
    "says it is proven on 'own kernel', and its checks say otherwise": ("fresh boot", "own kernel"),
    "says it is proven on 'fresh boot', and its checks say otherwise": (
        "(host)",
        "(host, own_kernel)",
    ),
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_what_a_part_lacks_is_told(tmp_path: Path, wrong: str) -> None:
    old, new = BROKEN[wrong]
    script = "#!/bin/sh\n# reason: it must\n# controls: CIS 1.2; ANSSI R9\n# proven: fresh boot\n"
    checks = "def test_it(host): ...\n"
    (tmp_path / "files/parts").mkdir(parents=True)
    (tmp_path / "files/parts/one.sh").write_text(script)
    (tmp_path / "test_one.py").write_text(checks)
    path = tmp_path / "files/parts/one.sh"
    assert wrongs(read(path, tmp_path)) == []
    for file in (path, tmp_path / "test_one.py"):
        file.write_text(file.read_text().replace(old, new))
    assert wrong in wrongs(read(path, tmp_path))
