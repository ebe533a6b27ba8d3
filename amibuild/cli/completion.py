"""What a shell offers after TAB. Read from files alone, at once: nobody waits for a completion.

Whatever is wrong with a file, nothing is said: a completion has no place for it, and the verb that
follows tells it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

DEFAULT_RECIPE = "amibuild.toml"
# Of a recipe that does not say: the model, which takes a quarter of a second to import, has them.
STEPS = ("os",)
CHANNELS = ("nightly", "staging", "production")
# A manifest begins with what it is of; all of it may be a megabyte.
HEAD_BYTES = 512
NUMBER = re.compile(r"[0-9]+")
# What bash takes for the end of a word, so that `@nightly` reaches us as two.
AT = "@"
AMI_ID = re.compile(rb'"id": "(ami-[0-9a-f]+)"')


def join_words(environment: MutableMapping[str, str]) -> None:
    """Makes one of the words that bash has cut at an `@`. It puts what we answer in their place."""
    words = environment.get("COMP_WORDS", "").split("\n")
    if environment.get("_AMIBUILD_COMPLETE") != "complete_bash" or AT not in words:
        return
    # What stands after the cursor is not looked at.
    joined: list[str] = []
    for word in words[: int(environment["COMP_CWORD"]) + 1]:
        if joined and joined[-1] == AT:
            joined[-1] += word
        else:
            joined.append(word)
    environment["COMP_WORDS"] = "\n".join(joined)
    environment["COMP_CWORD"] = str(len(joined) - 1)


def bake_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the recipe's folder has a journal of, the newest first."""
    journals = _files(_state(context) / "journals", ".jsonl")
    return _begun(incomplete, (path.stem for path in journals))


def paths_to_copy(context: typer.Context, incomplete: str) -> list[str]:
    """Files and folders here, and the bakes that may have others."""
    folder, slash, _ = incomplete.rpartition("/")
    here: list[str] = []
    with suppress(OSError):
        for path in sorted(Path(folder + slash or ".").iterdir()):
            here.append(f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}")
    return _begun(incomplete, [*here, *(f"{bake_id}:" for bake_id in bake_ids(context, ""))])


def steps(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the recipe names, in its order."""
    provision = _table(context, "provision")
    named = (*_texts(provision, "steps", STEPS), *_texts(provision, "services", ()))
    return _begun(incomplete, (*named, "seal"))


def steps_before_seal(context: typer.Context, incomplete: str) -> list[str]:
    """Those that run on a machine that is not sealed."""
    return [name for name in steps(context, incomplete) if name != "seal"]


def logged_steps(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the bake on the command line has a log of."""
    logs = _state(context) / "logs" / str(context.params.get("bake_id") or "")
    return sorted(_begun(incomplete, (path.stem for path in _files(logs, ".log"))))


def channels(context: typer.Context, incomplete: str) -> list[str]:
    """Those of the recipe, in its order."""
    return _begun(incomplete, _texts(_table(context, "channels"), "order", CHANNELS))


def images(context: typer.Context, incomplete: str) -> list[str]:
    """Those that the recipe's folder has a manifest of: versions, the newest first, and `@CHANNEL`
    for what is somewhere else. Names and ids once one was begun."""
    manifests = _files(_state(context) / "manifests", ".json")
    image = (_table(context, "image") or {}).get("name", "")
    names = [path.stem.partition("-before-")[0] for path in manifests]
    versions = [name.removeprefix(f"{image}-") for name in names if name.startswith(f"{image}-")]
    found = [*versions, *(f"{AT}{channel}" for channel in channels(context, ""))]
    if incomplete:
        found += names
    if incomplete.startswith("ami-"):
        found += filter(None, map(_ami_id, manifests))
    return _begun(incomplete, found)


def _begun(incomplete: str, words: Iterable[str]) -> list[str]:
    """Without those that would be more than a word on the terminal."""
    some = dict.fromkeys(word for word in words if word.startswith(incomplete))
    return [word for word in some if word.isprintable()]


def _files(folder: Path, suffix: str) -> list[Path]:
    """The newest first, by the numbers in their names."""
    with suppress(OSError, ValueError):
        return sorted(
            (path for path in folder.iterdir() if path.suffix == suffix),
            key=lambda path: [int(one) for one in NUMBER.findall(path.name)],
            reverse=True,
        )
    return []


def _ami_id(manifest: Path) -> str:
    with suppress(OSError), manifest.open("rb") as file:
        if found := AMI_ID.search(file.read(HEAD_BYTES)):
            return found[1].decode()
    return ""


def _table(context: typer.Context, name: str) -> dict[str, Any] | None:
    """That table of the recipe; None where the recipe can't be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = tomllib.loads(_recipe(context).read_text()).get(name)
        return found if isinstance(found, dict) else {}
    return None


def _texts(table: dict[str, Any] | None, key: str, default: Iterable[str]) -> list[str]:
    found = [] if table is None else table.get(key, default)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list | tuple) else []


def _recipe(context: typer.Context) -> Path:
    return Path(context.params.get("recipe") or DEFAULT_RECIPE)


def _state(context: typer.Context) -> Path:
    return _recipe(context).parent / ".amibuild"
