"""Where a step's artifacts come from, said to the builder when the step runs and never before.

The mirror is tried first, then the recipe's own address. What only this machine or its AWS account
can read reaches the builder by presigned URLs, which are made for one run of one step: they are in
no manifest, log or digest. Without a bucket, a file of this machine travels with the step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from amibuild.aws.session import Cloud
from amibuild.errors import AwsError, Denied, HostError
from amibuild.library.artifact import FOLDER, bucket_and_key, not_pinned, pin_command, shown
from amibuild.library.every_service.fetch import sha256_of
from amibuild.library.step import BuildStep, Source, StepFile
from amibuild.steps.upload import URL_VALID_S, BucketUpload

# Pieces of 45 KB, each a command of its own: this is some 180 of them.
CARRIED_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Places:
    """`mirror` is s3://BUCKET/PREFIX or a folder, as in the recipe; folders are below `base`."""

    base: Path
    mirror: str | None

    def file(self, source: Source) -> Path | None:
        """The file on this machine that is meant to be it, where one is."""
        if self.mirror is not None and not self.mirror.startswith("s3://"):
            mirrored = self.base / self.mirror / source.sha256
            if mirrored.is_file():
                return mirrored
        return file_of(source.url, self.base)

    def mirrored(self, sha256: str) -> tuple[str, str] | None:
        """Bucket and key in the mirror."""
        if self.mirror is None or not self.mirror.startswith("s3://"):
            return None
        bucket, _, prefix = self.mirror.removeprefix("s3://").partition("/")
        return bucket, "/".join([*filter(None, [prefix.strip("/")]), sha256])


def file_of(url: str, base: Path) -> Path | None:
    """The path of a file: address; None for the others."""
    parts = urlsplit(url)
    return base / unquote(parts.path) if parts.scheme == "file" else None


class ArtifactSources:
    """What travels with a step for one run: sources.json, and files where there is no bucket."""

    def __init__(self, cloud: Cloud, places: Places, upload: BucketUpload | None) -> None:
        self._cloud = cloud
        self._places = places
        self._upload = upload

    def __call__(self, step: BuildStep) -> tuple[StepFile, ...]:
        """Empty for a step that names no artifacts, steamcmd's included."""
        if not any(f.path == f"{FOLDER}/artifacts.json" for f in step.files):
            return ()
        valid_s = max(URL_VALID_S, step.timeout_s)
        carried: dict[str, StepFile] = {}
        sources = []
        for source in step.sources:
            urls = []
            if mirrored := self._places.mirrored(source.sha256):
                urls.append(self._cloud.s3.presigned_get(*mirrored, valid_s=valid_s))
            if path := self._places.file(source):
                check_file(path, source)
                if self._upload is not None:
                    urls.insert(0, self._upload.file(path, source.sha256, valid_s=valid_s))
                else:
                    blob = f"{FOLDER}/blobs/{source.sha256}"
                    carried[blob] = StepFile(blob, path.read_bytes(), 0o600)
            if place := bucket_and_key(source.url):
                urls.append(self._cloud.s3.presigned_get(*place, valid_s=valid_s))
            elif source.url.startswith("https://"):
                urls.append(source.url)
            sources.append(
                {"name": source.name, "sha256": source.sha256, "size": source.size, "urls": urls}
            )
        text = json.dumps(sources, indent=1) + "\n"
        return (StepFile(f"{FOLDER}/sources.json", text.encode(), 0o600), *carried.values())


def check_regular(path: Path) -> None:
    """Raises: HostError. A device or a pipe may have no end."""
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "there is no such file"
        raise HostError(f"{path}: {what}")


def check_file(path: Path, source: Source) -> None:
    """Raises: HostError when it is not there or not what is pinned: better here than over there."""
    check_regular(path)
    found = sha256_of(path)
    if found != source.sha256:
        raise HostError(
            f"{path} has the SHA-256 {found}, and {source.sha256} is pinned",
            hint=f"if it is the right file: {pin_command(source.url)}",
        )


def artifact_problems(
    steps: Sequence[BuildStep], places: Places, *, bucket: str | None
) -> Iterator[str]:
    """Why a bake would fail on its artifacts, as far as this machine can tell."""
    yield from not_pinned(tuple(steps))
    for step in steps:
        carried = 0
        for source in step.sources:
            path = places.file(source)
            if path is None:
                continue
            try:
                check_file(path, source)
            except HostError as error:
                yield f"{step.name}: {error.message}"
            else:
                carried += path.stat().st_size
        if bucket is None and carried > CARRIED_LIMIT_BYTES:
            yield (
                f"{step.name}: its artifacts are {carried / 2**20:.0f} MiB on this machine, and "
                f"only {CARRIED_LIMIT_BYTES // 2**20} MiB can travel without a bucket; "
                "name one: aws.bucket"
            )


def unreachable(cloud: Cloud, steps: Sequence[BuildStep], places: Places) -> Iterator[str]:
    """The s3:// artifacts that are neither at their address nor in the mirror, or can't be read."""
    for step in steps:
        for source in step.sources:
            place = bucket_and_key(source.url)
            if place is None or places.file(source) is not None:
                continue
            mirrored = places.mirrored(source.sha256)
            try:
                if not any(cloud.s3.exists(*at) for at in (mirrored, place) if at):
                    yield f"{step.name}: there is no {shown(source.url)}"
            except Denied:
                continue  # it may be read and not listed: the builder will tell
            except AwsError as error:
                yield f"{step.name}: {shown(source.url)} can't be read: {error.message}"
