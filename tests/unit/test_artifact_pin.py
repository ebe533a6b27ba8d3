"""`artifacts pin`: what it prints is taken by the recipe, or it says why nothing can be."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild.artifacts import ArtifactError, Pin, fetch_all, pin
from amibuild.errors import AmibuildError
from amibuild.library.step import Source
from amibuild.steps.artifacts import Places
from tests.unit.archives import tar
from tests.unit.samples import build_step


def pinned(url: str, base: Path) -> Pin:
    return pin(url, base, None, lambda _: None)


def test_a_device_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(AmibuildError, match="/dev/null: is not a regular file"):
        pinned("file:/dev/null", tmp_path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AmibuildError, match="none: there is no such file"):
        pinned("file:none", tmp_path)


@pytest.mark.parametrize(
    "top", ["top\n[steam]\napp = 1\n#\x1b[31m", "a\r\u202e\udcff\x7f", "plain"]
)
def test_an_archives_own_words_are_a_comment_and_nothing_else(tmp_path: Path, top: str) -> None:
    tar(tmp_path / "game.tar", content={f"{top}/server": b"x"})
    printed = pinned("file:game.tar", tmp_path).toml()
    assert tomllib.loads(printed)["artifact"]["strip"] == 1
    assert tomllib.loads(printed).keys() == {"artifact"}
    assert all(line.isprintable() for line in printed.split("\n"))
    assert len(printed.splitlines()) == 5


@pytest.mark.parametrize("url", ['file:a"b.tgz', "file:a\\b.tgz", "file:grüß.tgz"])
def test_an_address_is_printed_so_that_it_reads_back(tmp_path: Path, url: str) -> None:
    tar(tmp_path / url.removeprefix("file:"), "gz")
    assert tomllib.loads(pinned(url, tmp_path).toml())["artifact"]["url"] == url


def test_an_empty_file_is_not_pinned(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(AmibuildError, match="file:empty is an empty file"):
        pinned("file:empty", tmp_path)


@pytest.mark.parametrize("name", ["sp%20ace.jar", ".hidden"])
def test_a_plain_file_whose_name_the_recipe_refuses_is_not_pinned(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name.replace("%20", " ")).write_bytes(b"x")
    with pytest.raises(AmibuildError, match=r"can't be pinned: .* which no file can be called"):
        pinned(f"file:{name}", tmp_path)


def test_a_failure_to_fetch_does_not_tell_the_query(tmp_path: Path) -> None:
    said: list[str] = []
    url = f"https://{'a' * 64}.invalid/y?token=SECRET"  # no name can be that long
    with pytest.raises(ArtifactError, match=r"a\.invalid/y was not fetched") as failure:
        pin(url, tmp_path, None, said.append)
    assert "SECRET" not in f"{failure.value}{said}"


def test_what_was_fetched_is_listed_without_its_query(tmp_path: Path) -> None:
    (tmp_path / "game").write_bytes(b"x")
    source = Source("file:game?token=SECRET", "game", hashlib.sha256(b"x").hexdigest())
    steps = [replace(build_step(), sources=(source,))]
    (held,) = fetch_all(steps, Places(tmp_path, None), tmp_path / "into", None, lambda _: None)
    assert held.url == "file:game"
