"""Waits until somebody saves a file.

By looking, several times a second, at names, sizes and times: that works on every file system, also
on those that tell of nothing, such as a shared folder of a virtual machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from amibuild.errors import WaitTimeout
from amibuild.wait import Clock, Look, Observer, silent, until

# What is waited for: the story stands still meanwhile.
SAVE = "a save"
# Whoever saves wants to see it run.
LOOK_AGAIN_S = 0.2
# An editor may write several files, or one in two goes.
SETTLED_S = 5.0
# As long as any wait may be told; the next begins at once.
PATIENCE_S = 24 * 3600.0
# What editors put beside a file; vim tries whether it may write there with a file called 4913.
IGNORED = (".*.sw?", ".#*", "#*#", "*~", "4913", "__pycache__")

Snapshot = dict[Path, tuple[int, int, int]]
"""Path -> time of its last change in ns, size, inode: an editor may put another in its place."""


@dataclass(frozen=True)
class Save:
    """`files` are those that are there now. `at` is when the newest of those that differ was saved,
    in seconds since the epoch; None where no file was: one has gone, or somebody `asked`."""

    files: Snapshot
    at: float | None
    asked: bool = False


def snapshot(roots: Sequence[Path]) -> Snapshot:
    """All files below the roots, or the roots themselves where they are files, but for what editors
    put beside them."""
    return dict(_found(roots))


def _found(paths: Sequence[Path]) -> Iterator[tuple[Path, tuple[int, int, int]]]:
    for path in paths:
        try:
            if path.is_dir():
                yield from _found([one for one in path.iterdir() if _counts(one.name)])
            else:
                facts = path.stat()
                # A file that is put in place may bring a time that is long ago.
                changed = max(facts.st_mtime_ns, facts.st_ctime_ns)
                yield path, (changed, facts.st_size, facts.st_ino)
        except OSError:  # it went meanwhile, which the next look sees
            continue


def _counts(name: str) -> bool:
    return not any(fnmatchcase(name, pattern) for pattern in IGNORED)


def wait_for_save(
    roots: Sequence[Path],
    before: Snapshot,
    *,
    clock: Clock | None = None,
    observer: Observer = silent,
    asked: Callable[[], bool] = lambda: False,
) -> Save:
    """Until the files are others than before, and stay so for a moment, or somebody `asked`."""
    wanted = False
    seen = before

    def changed() -> Look[bool]:
        nonlocal seen, wanted
        seen = snapshot(roots)
        wanted = seen == before and asked()
        return Look("saved", True) if seen != before or wanted else Look("nothing yet")

    def settled() -> Look[bool]:
        nonlocal seen
        last, seen = seen, snapshot(roots)
        return Look("goes on", True if seen == last else None)

    while True:
        try:
            until(
                changed,
                what=SAVE,
                timeout_s=PATIENCE_S,
                clock=clock,
                observer=observer,
                longest_s=LOOK_AGAIN_S,
            )
            break
        except WaitTimeout:
            continue
    if wanted:
        return Save(seen, None, asked=True)
    # Where something writes all the time, it is looked at as it is.
    with suppress(WaitTimeout):
        until(settled, what=SAVE, timeout_s=SETTLED_S, clock=clock, observer=observer)
    times = [facts[0] for path, facts in seen.items() if before.get(path) != facts]
    return Save(seen, max(times) / 1e9 if times else None)
