"""The tree below a provisioner's files/: what of it goes to the machine, and what must not.

A file's mode is what git keeps of it, 0644 or 0755, so that the same commit is the same image under
anybody's umask. Another mode, and an owner other than root, are asked for in provisioner.toml.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from amibuild.errors import Problem
from amibuild.library.step import StepFile
from amibuild.recipe.document import Document, Misplaced, did_you_mean
from amibuild.recipe.section import Section
from amibuild.recipe.values import matching

# Python leaves these where it ran a file: with them a test of it would change the image.
LEFT_OUT = "__pycache__"
MODE = re.compile(r"0?[0-7]{3,4}")
NAME = r"[a-z_][a-z0-9_.-]{0,30}"
OWNER = re.compile(f"{NAME}:{NAME}")


class Asked(Section):
    """What is asked for one file or folder, in the table of its path."""

    mode: Annotated[str, matching(MODE, 'a mode such as "0440"')] | None = Field(
        default=None, description='Permission bits, as chmod takes them: "0440".'
    )
    owner: Annotated[str, matching(OWNER, 'an owner such as "root:adm"')] | None = Field(
        default=None, description="USER:GROUP, both known to the machine before the step begins."
    )


def _asked_paths(asked: Mapping[str, Asked]) -> Mapping[str, Asked]:
    for path in asked:
        if not path or os.path.normpath(path) != path or path.startswith(("/", "../")):
            raise Misplaced(f"{path!r} is no path below files/", path, of_key=True)
    return asked


AskedFiles = Annotated[Mapping[str, Asked], AfterValidator(_asked_paths)]


def read_tree(top: Path, problems: list[Problem], *, prefix: str, plain: bool) -> list[StepFile]:
    """All that is below a folder, in the order of its names. Only a `plain` one has no links."""
    if top.is_symlink() or (top.exists() and not top.is_dir()):
        problems.append(Problem(top, None, "", "must be a folder, and no link to one"))
        return []
    found: list[StepFile] = []
    first_names: dict[tuple[int, int], str] = {}
    for path in sorted(top.rglob("*")):
        relative = path.relative_to(top).as_posix()
        if LEFT_OUT in path.parts:
            continue
        reason = _refusal(path, top, plain=plain)
        if reason is not None:
            problems.append(Problem(path, None, "", reason))
            continue
        if path.is_symlink():
            found.append(StepFile(prefix + relative, b"", 0o777, link=_target(path)))
        elif not path.is_dir():
            seen = path.stat()
            first = first_names.setdefault((seen.st_dev, seen.st_ino), prefix + relative)
            content = read(path, problems)
            if content is None:
                continue
            mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
            same_as = "" if plain or first == prefix + relative else first
            kept = b"" if same_as else content
            found.append(StepFile(prefix + relative, kept, mode, same_as=same_as))
    return found


def as_asked(
    files: Sequence[StepFile],
    asked: Mapping[str, Asked],
    folders: Sequence[str],
    document: Document,
    problems: list[Problem],
    *,
    prefix: str,
) -> tuple[StepFile, ...]:
    """The files with the modes and owners of the table, and the folders that it names.

    A second name of a file has what the first one has: they are one file.
    """
    by_path = {file.path: file for file in files}
    for path, one in asked.items():
        name = prefix + path
        file = by_path.get(name)
        if file is None and path in folders:
            file = StepFile(name, b"", 0o755, folder=True)
        if file is None:
            known = [*(one.path.removeprefix(prefix) for one in files), *folders]
            problem = "there is nothing of that name below files/"
            suggestion = did_you_mean(path, known)
            problems.append(document.origin.problem(("files", path), problem, suggestion))
        elif file.link or file.same_as:
            what = f"is a link to {file.link}" if file.link else f"is the same as {file.same_as}"
            problem = f"{what}: ask for the mode and owner of that"
            problems.append(document.origin.problem(("files", path), problem))
        else:
            mode = file.mode if one.mode is None else int(one.mode, 8)
            by_path[name] = replace(file, mode=mode, owner=one.owner or "")
    return tuple(sorted(by_path.values(), key=lambda one: Path(one.path)))


def folders_below(top: Path) -> list[str]:
    return [
        path.relative_to(top).as_posix()
        for path in sorted(top.rglob("*"))
        if path.is_dir() and not path.is_symlink() and LEFT_OUT not in path.parts
    ]


def read(path: Path, problems: list[Problem]) -> bytes | None:
    try:
        # A pipe would be waited for, and a device may have no end.
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            problems.append(Problem(path, None, "", "is no plain file"))
            return None
        return path.read_bytes()
    except FileNotFoundError:
        problems.append(Problem(path, None, "", "is missing"))
    except OSError as error:
        problems.append(Problem(path, None, "", f"can't be read: {error.strerror}"))
    return None


def _refusal(path: Path, top: Path, *, plain: bool) -> str | None:
    """Why something must not travel."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8, and the manifest could not tell it"
    if path.is_symlink():
        return _LINK_OF_DATA if plain else next(_link_refusals(path, top), None)
    kind = path.lstat().st_mode
    for is_kind, what in _KINDS:
        if is_kind(kind):
            return f"is {what}: only files, folders and links can travel"
    return None


_LINK_OF_DATA = "is a link: what it points to on the machine may be something else"
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _target(link: Path) -> str:
    return os.readlink(link)  # noqa: PTH115 - a Path would not keep it as it is written


def _link_refusals(path: Path, top: Path) -> Iterator[str]:
    target = _target(path)
    told = f"is a link to {target}"
    try:
        target.encode()
    except UnicodeEncodeError:
        yield "is a link to a name that is not UTF-8"
    if target.startswith("/"):
        yield f"{told}, out of files/: let run.sh make it by `ln -s`"
    here = path.parent.relative_to(top).as_posix()
    if os.path.normpath(f"{here}/{target}").split("/")[0] == "..":
        yield f"{told}, out of files/: what that is on the machine may be something else"
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        yield f"{told}, where nothing is"
    except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise the latter
        yield f"{told}, which goes round in a circle"
    else:
        if not real.is_relative_to(top.resolve()):
            yield f"{told}, by way of another link out of files/"
