"""What TAB offers: from files, whatever is in them, and nothing else is ever said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amibuild import proc
from amibuild.cli import completion
from amibuild.outputs.manifest import to_json
from amibuild.recipe.model import Channels, Provision
from tests.unit.samples import manifest

RECIPE = """
[image]
name = "game-host"
[channels]
order = ["edge", "live"]
"""
VERSIONS = ("2026.11.9.1", "2026.11.22.9", "2026.11.22.10")
IDS = [f"ami-{n:017x}" for n in range(1, 4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe, and manifests of three images of it and of one of another."""
    (tmp_path / "amibuild.toml").write_text(RECIPE)
    manifests = tmp_path / ".amibuild" / "manifests"
    manifests.mkdir(parents=True)
    for version, image in zip(VERSIONS, IDS, strict=True):
        text = to_json(manifest(version, image_id=image))
        (manifests / f"game-host-{version}.json").write_text(text)
    (manifests / "game-host-2026.11.9.1-before-ami-0b.json").write_text("{}")
    (manifests / "web-host-2026.11.9.1.json").write_text("{}")
    return tmp_path


def at(folder: Path) -> Any:
    return SimpleNamespace(params={"recipe": str(folder / "amibuild.toml")})


def test_channels_come_in_the_recipes_order(folder: Path) -> None:
    assert completion.channels(at(folder), "") == ["edge", "live"]
    assert completion.channels(at(folder), "l") == ["live"]


def test_images_are_offered_by_version_the_newest_first_and_by_channel(folder: Path) -> None:
    assert completion.images(at(folder), "") == [*reversed(VERSIONS), "@edge", "@live"]
    assert completion.images(at(folder), "@l") == ["@live"]
    assert completion.images(at(folder), "2026.11.22.") == ["2026.11.22.10", "2026.11.22.9"]


def test_what_can_be_copied_is_here_or_at_a_bake(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    journals = folder / ".amibuild" / "journals"
    journals.mkdir()
    (journals / "20261122-101500-abc123.jsonl").touch()
    (folder / "some" / "deep").mkdir(parents=True)
    (folder / "some" / "file").touch()
    assert completion.paths_to_copy(at(folder), "s") == ["some/"]
    assert completion.paths_to_copy(at(folder), "some/") == ["some/deep/", "some/file"]
    assert completion.paths_to_copy(at(folder), "2026") == ["20261122-101500-abc123:"]
    assert completion.paths_to_copy(at(folder), "gone/x") == []


def test_a_name_or_an_id_that_was_begun_is_finished(folder: Path) -> None:
    names = [f"game-host-{version}" for version in reversed(VERSIONS)]
    assert completion.images(at(folder), "game") == names
    assert completion.images(at(folder), "ami-") == IDS[::-1]
    assert completion.images(at(folder), IDS[1]) == [IDS[1]]


def test_what_a_recipe_does_not_say_is_as_the_model_has_it(folder: Path) -> None:
    (folder / "amibuild.toml").write_text('[image]\nname = "game-host"\n')
    assert tuple(completion.channels(at(folder), "")) == Channels().order
    assert tuple(completion.steps(at(folder), "")) == (*Provision().steps, "seal")


@pytest.mark.parametrize(
    "text",
    [
        b"[channels\n",
        b"channels = 3\nprovision = 3\nimage = 3\n",
        b"[channels]\norder = 3\n[provision]\nsteps = {}\nservices = [1]\n[image]\nname = 3\n",
        b"\xff\xfe",
        b"a = " + b"[" * 5000,
    ],
)
@pytest.mark.parametrize("begun", ["", "@", "ami-", "**", "/", "[", "\x1b"])
def test_a_broken_recipe_is_no_error(folder: Path, text: bytes, begun: str) -> None:
    (folder / "amibuild.toml").write_bytes(text)
    for offers in (
        completion.bake_ids,
        completion.channels,
        completion.images,
        completion.logged_steps,
        completion.steps,
    ):
        found = offers(at(folder), begun)
        assert all(word.startswith(begun) for word in found)


def test_files_that_are_none_are_passed_over(folder: Path) -> None:
    manifests = folder / ".amibuild" / "manifests"
    (manifests / "game-host-2026.11.30.1.json").mkdir()
    (manifests / "game-host-\x1b[2J.json").write_text("")
    (manifests / os.fsdecode(b"game-host-\xff.json")).write_text("")
    (manifests / "game-host-2026.11.29.1.json").symlink_to("nowhere")
    assert completion.images(at(folder), "ami-") == IDS[::-1]
    assert all(word.isprintable() for word in completion.images(at(folder), ""))


def offered(folder: Path, *words: str) -> list[str]:
    """As bash asks, with the last word begun."""
    environment = {
        "_AMIBUILD_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("amibuild", *words)),
        "COMP_CWORD": str(len(words)),
    }
    program = Path(sys.executable).with_name("amibuild")
    done = proc.run([program], cwd=folder, env=environment, check=False)
    assert (done.exit_code, done.stderr) == (0, b"")
    return done.text.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("promote", ""), [*reversed(VERSIONS), "@edge", "@live"]),
        (("promote", "@edge", "--to", ""), ["edge", "live"]),
        (("rollback", "l"), ["live"]),
        (("rollback", "live", "--to", "2026.11.9"), ["2026.11.9.1"]),
        (("channels", "history", ""), ["edge", "live"]),
        (("revoke", "@e"), ["@edge"]),
        (("verify", "@e"), ["@edge"]),
        (("show", "2026.11.9"), ["2026.11.9.1"]),
        (("terraform", "--image", "@l"), ["@live"]),
    ],
)
def test_the_verbs_offer_them(folder: Path, words: tuple[str, ...], wanted: list[str]) -> None:
    assert offered(folder, *words) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("promote", "@"), ["@edge", "@live"]),
        (("promote", "@", "ed"), ["@edge"]),
        (("promote", "@", "edge", "--to", "l"), ["live"]),
        (("promote", "@", "edge", "--reason", "a", "--to", ""), ["edge", "live"]),
        (("terraform", "--image", "@", "l"), ["@live"]),
    ],
)
def test_a_word_that_bash_has_cut_at_an_at_is_one(
    folder: Path, words: tuple[str, ...], wanted: list[str]
) -> None:
    assert offered(folder, *words) == wanted


def test_where_there_is_nothing_nothing_is_said(tmp_path: Path) -> None:
    assert offered(tmp_path, "rollback", "") == []
