"""What counts as a save, and when one is over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amibuild.saved import Save, snapshot, wait_for_save
from amibuild.wait import Waiting
from tests.unit.fakes import FakeClock

# Long after these tests were written, for a file that is moved in counts from when it was.
SAVED_S = 4_000_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "os" / "files").mkdir(parents=True)
    (tmp_path / "os" / "run.sh").write_text("one\n")
    (tmp_path / "os" / "files" / "motd").write_text("hello\n")
    return tmp_path


def waited(folder: Path, *deeds: Callable[[], object]) -> tuple[Save, int]:
    """One deed after each look; how many looks there were."""
    left = list(deeds)
    looks: list[Waiting] = []

    def hear(waiting: Waiting) -> None:
        looks.append(waiting)
        if left:
            left.pop(0)()

    save = wait_for_save([folder], snapshot([folder]), clock=FakeClock(), observer=hear)
    return save, len(looks)


def saved(path: Path, text: str, at: float = SAVED_S) -> None:
    path.write_text(text)
    os.utime(path, (at, at))


def test_it_says_when_the_newest_was_saved(folder: Path) -> None:
    def save_both() -> None:
        saved(folder / "os" / "run.sh", "two\n")
        saved(folder / "os" / "files" / "motd", "bye\n", SAVED_S - 5)

    save, _ = waited(folder, save_both)
    assert (save.at, save.asked) == (SAVED_S, False)
    assert save.files == snapshot([folder])


def test_one_that_was_put_in_the_place_of_another_is_another(folder: Path) -> None:
    old = folder / "os" / "run.sh"
    facts = old.stat()

    def replace() -> None:
        new = folder.parent / "new"
        new.write_text("six\n")
        os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        new.rename(old)

    save, _ = waited(folder, replace)
    assert save.at == old.stat().st_ctime_ns / 1e9
    assert save.at > facts.st_ctime_ns / 1e9


def test_one_that_has_gone_has_no_time(folder: Path) -> None:
    save, _ = waited(folder, (folder / "os" / "files" / "motd").unlink)
    assert (save.at, save.asked) == (None, False)


def test_that_it_can_be_run_from_now_on_is_a_save(folder: Path) -> None:
    run = folder / "os" / "run.sh"
    save, _ = waited(folder, lambda: run.chmod(0o755))
    assert save.at == run.stat().st_ctime_ns / 1e9


def test_what_an_editor_puts_beside_a_file_is_no_save(folder: Path) -> None:
    save, looks = waited(
        folder,
        lambda: (folder / "os" / ".run.sh.swp").write_text("x"),
        lambda: (folder / "os" / "run.sh~").write_text("x"),
        lambda: (folder / "os" / "__pycache__").mkdir(),
        lambda: (folder / "os" / "4913").write_text("x"),
        lambda: saved(folder / "os" / "files" / ".profile", "two\n"),
    )
    assert looks > 5
    assert {path.name for path in save.files} == {"run.sh", "motd", ".profile"}


def test_it_waits_until_an_editor_that_writes_in_goes_is_done(folder: Path) -> None:
    run = folder / "os" / "run.sh"
    save, _ = waited(
        folder,
        lambda: saved(run, ""),
        lambda: saved(run, "tw", SAVED_S + 1),
        lambda: saved(run, "two\n", SAVED_S + 2),
    )
    assert save.files[run][1] == len("two\n")
    assert save.at == SAVED_S + 2


def test_something_that_writes_all_the_time_does_not_hold_it_up(folder: Path) -> None:
    run = folder / "os" / "run.sh"
    deeds = [lambda n=n: saved(run, "x" * n) for n in range(1, 500)]
    save, looks = waited(folder, *deeds)
    assert save.at == SAVED_S
    assert looks < 100


def test_it_ends_when_somebody_asks(folder: Path) -> None:
    before = snapshot([folder])
    asked = iter([False, False, True])
    save = wait_for_save([folder], before, clock=FakeClock(), asked=lambda: next(asked))
    assert save == Save(before, None, asked=True)


def test_a_file_among_the_roots_counts_too_and_what_is_not_there_does_not(folder: Path) -> None:
    recipe = folder / "amibuild.toml"
    recipe.write_text("x")
    assert set(snapshot([recipe, folder / "nowhere"])) == {recipe}
