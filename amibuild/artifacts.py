"""The recipe's artifacts on this machine: what to pin, all of them in a folder, or in a mirror.

They come by the very code that fetches them on the builder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from amibuild.aws.session import Cloud
from amibuild.errors import AmibuildError, UsageError
from amibuild.library.artifact import Artifact, bucket_and_key, name_of, not_pinned, shown
from amibuild.library.every_service.fetch import FetchFailed, NotWritten, fetch, sha256_of
from amibuild.library.every_service.unpack import BROKEN, entries, parts_of
from amibuild.library.step import BuildStep, Source
from amibuild.steps.artifacts import Places, check_file, check_regular
from amibuild.steps.upload import URL_VALID_S

Say = Callable[[str], None]
NO_ARCHIVES = (".jar", ".war", ".apk", ".exe")  # zips, or made by one, that are run as they are


class ArtifactError(AmibuildError):
    """An artifact could not be fetched, or is not what the recipe pins."""


@dataclass(frozen=True)
class Pin:
    """What a recipe says of a file. `top` is the one folder that all of an archive is below."""

    url: str
    sha256: str
    size: int
    unpack: bool
    top: str | None

    def toml(self) -> str:
        lines = ["[artifact]", f"url = {_quoted(self.url)}", f"sha256 = {_quoted(self.sha256)}"]
        lines.append(f"size = {self.size}")
        if not self.unpack:
            lines.append("unpack = false")
        if self.top is not None:
            top = "".join(c if c.isprintable() else "?" for c in self.top)
            lines.append(f"strip = 1                           # all of it is below {top}/")
        return "\n".join(lines)


def _quoted(text: str) -> str:
    """As a basic string of TOML, whatever is in it."""
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(char: str) -> str:
    if char in ('"', "\\"):
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"


@dataclass(frozen=True)
class Held:
    """An artifact that is there now; `fresh` when this call brought it. `url` has no query."""

    step: str
    url: str
    place: str
    fresh: bool


def pin(url: str, base: Path, cloud: Cloud | None, say: Say) -> Pin:
    """Raises: ArtifactError when it can't be fetched, or is nothing that a recipe may name."""
    with tempfile.TemporaryDirectory(prefix="amibuild-pin-") as folder:
        path = Path(folder, "file")
        _bring(Source(url, name_of(url), ""), path, Places(base, None), cloud, say)
        sha256, size = sha256_of(path), path.stat().st_size
        names = None if name_of(url).endswith(NO_ARCHIVES) else _names(path)
        tops = {parts[0] for parts in names or [] if parts}
        nested = any(len(parts) > 1 for parts in names or [])
        top = tops.pop() if len(tops) == 1 and nested else None
        found = Pin(url, sha256, size, names is not None, top)
    _check(found)
    return found


def _check(found: Pin) -> None:
    """What is printed must be taken. Raises: ArtifactError."""
    if found.size == 0:
        raise ArtifactError(f"{shown(found.url)} is an empty file", hint="is it the right address?")
    try:
        Artifact(url=found.url, sha256=found.sha256, size=found.size, unpack=found.unpack)
    except ValidationError as error:
        raise ArtifactError(
            f"{shown(found.url)} can't be pinned: {error.errors()[0]['ctx']['error']}",
            hint="it is not unpacked and keeps its name: give it one of letters, digits and ._+@=-",
        ) from error


def _names(path: Path) -> list[tuple[str, ...]] | None:
    """None when it is no archive that can be unpacked."""
    try:
        return [parts_of(entry.name) for entry in entries(path)]
    except BROKEN:
        return None


def fetch_all(
    steps: Sequence[BuildStep], places: Places, into: Path, cloud: Cloud | None, say: Say
) -> list[Held]:
    """Each as `into`/SHA256, checked: a folder that can be the recipe's mirror.

    Raises: UsageError for placeholders, ArtifactError for the first that can't be fetched.
    """
    if problems := list(not_pinned(tuple(steps))):
        raise UsageError("\n".join(problems))
    into.mkdir(parents=True, exist_ok=True)
    held = []
    for step, source in sources_of(steps):
        path = into / source.sha256
        fresh = not (path.is_file() and sha256_of(path) == source.sha256)
        if fresh:
            path.unlink(missing_ok=True)
            _bring(source, path, places, cloud, say)
        held.append(Held(step, shown(source.url), str(path), fresh))
    return held


def mirror_all(
    steps: Sequence[BuildStep], places: Places, cache: Path, cloud: Cloud | None, say: Say
) -> list[Held]:
    """Each in the recipe's mirror. Raises: as fetch_all; UsageError without a mirror; AwsError."""
    if places.mirror is None:
        raise UsageError(
            "the recipe names no mirror",
            hint='[artifacts] mirror = "s3://BUCKET/PREFIX", or a folder',
        )
    if not places.mirror.startswith("s3://"):
        return fetch_all(steps, places, places.base / places.mirror, cloud, say)
    assert cloud is not None
    held = []
    for step, source in sources_of(steps):
        at = places.mirrored(source.sha256)
        assert at is not None
        place = f"s3://{at[0]}/{at[1]}"
        fresh = not cloud.s3.exists(*at)
        if fresh:
            (one,) = [s for s in steps if s.name == step]
            fetch_all([one], places, cache, cloud, say)
            say(f"storing {place}")
            cloud.s3.put_file(*at, cache / source.sha256)
        held.append(Held(step, shown(source.url), place, fresh))
    return held


def sources_of(steps: Sequence[BuildStep]) -> Iterator[tuple[str, Source]]:
    return ((step.name, source) for step in steps for source in step.sources)


def needs_cloud(urls: Sequence[str], mirror: str | None) -> bool:
    """Whether any of it is in S3."""
    return any(bucket_and_key(url) for url in urls) or (mirror or "").startswith("s3://")


def _bring(source: Source, path: Path, places: Places, cloud: Cloud | None, say: Say) -> None:
    with _as_ours(source):
        if found := places.file(source):
            if source.sha256:
                check_file(found, source)
            else:
                check_regular(found)
            part = path.with_name(path.name + ".part")
            shutil.copyfile(found, part)
            part.replace(path)
            return
        fetch(_urls(source, places, cloud), path, source.sha256 or None, source.size, say=say)


def _urls(source: Source, places: Places, cloud: Cloud | None) -> list[str]:
    in_s3 = [places.mirrored(source.sha256), bucket_and_key(source.url)] if cloud else []
    urls = [cloud.s3.presigned_get(*at, valid_s=URL_VALID_S) for at in in_s3 if at and cloud]
    return [*urls, *([source.url] if source.url.startswith("https://") else [])]


@contextmanager
def _as_ours(source: Source) -> Iterator[None]:
    try:
        yield
    except FetchFailed as error:
        mirror = "the recipe may name a mirror: [artifacts] mirror"
        raise ArtifactError(
            f"{shown(source.url)} was not fetched: {error}",
            hint=None if isinstance(error, NotWritten) else mirror,
        ) from error
