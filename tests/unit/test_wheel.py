"""The wheel has everything that an installed amibuild needs beside its Python files."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from amibuild import proc

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    proc.run([*pip, "--wheel-dir", folder, REPOSITORY])
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def test_the_bundled_provisioners_ship(names: set[str]) -> None:
    tracked = proc.run(["git", "-C", REPOSITORY, "ls-files", "provisioners"]).text.split()
    assert tracked
    assert {f"amibuild/{path}" for path in tracked} <= names


def test_scripts_and_examples_ship(names: set[str]) -> None:
    package = REPOSITORY / "amibuild"
    data = {
        str(path.relative_to(REPOSITORY))
        for path in package.rglob("*")
        if path.is_file() and path.suffix in {".sh", ".toml", ".typed", ".py"}
        if "__pycache__" not in path.parts
    }
    assert any(path.endswith(".sh") for path in data)
    assert data <= names


def test_tests_and_benchmarks_do_not_ship(names: set[str]) -> None:
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]
