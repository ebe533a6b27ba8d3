"""Any text in place of a recipe, a service or a provisioner: read, or refused in our own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amibuild.errors import Problem, RecipeError
from amibuild.library.folder import read_provisioner, read_service
from amibuild.library.load import bundled_provisioners, load_project_parts
from amibuild.wording import failure_lines
from tests.unit.broken import CORPUS, RUN, provisioner

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True)

RECIPE = (Path(__file__).parents[2] / "amibuild.toml").read_text()
SERVICE = (bundled_provisioners() / "services/minetest/service.toml").read_text()
PROVISIONER = """\
purpose = "Says hello."
timeout_s = 60
after = ["os"]
[parameters.who]
type = "string"
description = "Who is greeted."
default = "world"
choices = ["world", "moon"]
[parameters.times]
type = "integer"
description = "How often."
default = 3
minimum = 1
[artifact]
url = "https://example.com/a.tar.gz"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""
VALUES = [
    "", "0", "-1", "1.5", "nan", "1e400", "9" * 50, "9" * 5000, "true", "2026-11-22", "10:00:00",
    '""', '"x"', "'''\n\n'''", '"\\u001b[2J"', '"{state}/{port.x}"', '"../.."', '"\\u0000"', "[]",
    "[[]]", '["", 1]', "{}", "{ a = { b = [1] } }", '"""', "[[[", "\ufeff", "é", "\0", "\r",
]  # fmt: skip
LINES = [
    "[image]",
    "[[ports]]",
    "[parameters]",
    "x = 1",
    "a.b.c.d = 1",
    "[a.b",
    "]",
    "based_on = 1",
]

Mutation = Callable[[list[str]], list[str]]


def _at(lines: list[str], index: int) -> int:
    return index % max(len(lines), 1)


def dropped(index: int) -> Mutation:
    return lambda lines: [line for n, line in enumerate(lines) if n != _at(lines, index)]


def doubled(index: int) -> Mutation:
    return lambda lines: [*lines[: _at(lines, index) + 1], *lines[_at(lines, index) :]]


def inserted(index: int, line: str) -> Mutation:
    return lambda lines: [*lines[: _at(lines, index)], line, *lines[_at(lines, index) :]]


def swapped(index: int, other: int) -> Mutation:
    def swap(lines: list[str]) -> list[str]:
        if not lines:
            return lines
        made, one, two = list(lines), _at(lines, index), _at(lines, other)
        made[one], made[two] = made[two], made[one]
        return made

    return swap


def valued(index: int, value: str) -> Mutation:
    """One key gets another value."""

    def replace(lines: list[str]) -> list[str]:
        keys = [n for n, line in enumerate(lines) if "=" in line]
        if not keys:
            return lines
        made, at = list(lines), keys[index % len(keys)]
        made[at] = made[at].partition("=")[0] + "= " + value
        return made

    return replace


def cut(index: int) -> Mutation:
    return lambda lines: "\n".join(lines)[: index * 7].split("\n")


numbers = st.integers(0, 400)
mutations = st.one_of(
    numbers.map(dropped),
    numbers.map(doubled),
    st.builds(inserted, numbers, st.sampled_from(LINES)),
    st.builds(swapped, numbers, numbers),
    st.builds(valued, numbers, st.sampled_from(VALUES)),
    st.builds(valued, numbers, st.sampled_from(VALUES)),
    numbers.map(cut),
)


def mutated(*bases: str) -> st.SearchStrategy[str]:
    def mutate(base: str, steps: list[Mutation]) -> str:
        lines = base.split("\n")
        for step in steps:
            lines = step(lines)
        return "\n".join(lines)

    return st.builds(mutate, st.sampled_from(bases), st.lists(mutations, min_size=1, max_size=4))


def check(problems: tuple[Problem, ...], text: str) -> None:
    """What is said can be shown, points into the file, and is none of a library's own words."""
    count = text.count("\n") + 1
    for problem in problems:
        assert problem.line is None or 1 <= problem.line <= count
        assert "nput should" not in str(problem)
        assert "nable to" not in str(problem)
        assert str(problem).isprintable()
    for line in failure_lines(RecipeError(problems)):
        assert line.text.isprintable()
        assert len(line.text) < 12_000


@BOUNDED
@given(mutated(RECIPE, *(path.read_text() for path in sorted((CORPUS / "recipes").glob("*.toml")))))
def test_a_recipe_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "amibuild.toml"
    path.write_text(text)
    try:
        load_project_parts(path)
    except RecipeError as error:
        check(error.problems, text)


@BOUNDED
@given(st.binary(max_size=200))
def test_bytes_are_no_recipe(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "amibuild.toml"
    path.write_bytes(raw)
    with pytest.raises(RecipeError) as refused:
        load_project_parts(path)
    check(refused.value.problems, raw.decode(errors="replace"))


@BOUNDED
@given(mutated(SERVICE))
def test_a_service_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "game"
    folder.mkdir(exist_ok=True)
    (folder / "service.toml").write_text(text)
    read = read_service(folder, {"game": folder})
    assert read.value is not None or read.problems
    check(read.problems, text)


@BOUNDED
@given(mutated(PROVISIONER), mutated(RUN))
def test_a_provisioner_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, script: str
) -> None:
    home = tmp_path_factory.getbasetemp() / "home"
    folder = home / "provisioners/greet"
    if not folder.exists():
        provisioner(home)
    (folder / "provisioner.toml").write_text(text)
    (folder / "run.sh").write_text(script)
    read = read_provisioner(folder)
    assert read.value is not None or read.problems
    check(tuple(p for p in read.problems if p.path.suffix == ".toml"), text)
    check(tuple(p for p in read.problems if p.path.name == "run.sh"), script)
