"""Fetches pinned files: by retries, from where a cut connection left off, checked by SHA-256.

    python3 fetch.py SOURCES.json FOLDER

Runs on the builder with its own python3, and in the controller for `amibuild artifacts`.
SOURCES.json is a list of {"sha256", "size", "urls"}: the urls are tried in their order. The bytes
end as FOLDER/SHA256, or not at all. Beside SOURCES.json, a file blobs/SHA256 saves the fetching.
An address may hold a signature that grants access: what is printed ends before the `?`.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TRIES = 6
FIRST_PAUSE_S = 1.0
SILENCE_S = 60.0
CHUNK = 1024 * 1024
TELL_EVERY_S = 15.0
# The server is at fault or busy: the same request may succeed later. Anything else is final.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
WRONG_RANGE = 416
# What a disk says and no connection does. A failed write names no file.
OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
LENGTH = re.compile(r"[0-9]{1,18}")

Say = Callable[[str], None]
Pause = Callable[[float], None]


class FetchFailed(Exception):
    """No source gave the bytes that the checksum names."""


class NotWritten(FetchFailed):
    """Its bytes came, and the disk did not take them: another address changes nothing."""


class _Cut(Exception):
    """This try failed; the next one may not."""


def say_on_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def shown(url: str) -> str:
    """The address without what may be a signature, a password or a token in it."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while piece := opened.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def fetch(
    urls: Sequence[str],
    target: Path,
    sha256: str | None,
    size: int | None = None,
    *,
    say: Say = say_on_stderr,
    pause: Pause = time.sleep,
) -> None:
    """`target` holds the bytes from the first address that has them; it was not there before.

    Without `sha256` whatever comes is taken: that is for finding out what to pin.
    Raises: FetchFailed, with nothing left behind.
    """
    part = target.with_name(target.name + ".part")
    why = []
    try:
        for url in urls:
            say(f"fetching {shown(url)}")
            part.unlink(missing_ok=True)
            try:
                _complete(url, part, size, say, pause)
            except NotWritten:
                raise
            except FetchFailed as error:
                why.append(f"{shown(url)}: {error}")
            else:
                if wrong := _mismatch(part, sha256, size):
                    why.append(f"{shown(url)}: {wrong}")
                else:
                    part.replace(target)
                    return
            say(why[-1])
        raise FetchFailed("; ".join(why) or "no address is known for it")
    finally:
        part.unlink(missing_ok=True)


def _mismatch(part: Path, sha256: str | None, size: int | None) -> str:
    seen = part.stat().st_size
    if size is not None and seen != size:
        return f"has {seen} bytes, and {size} were expected"
    found = sha256_of(part) if sha256 else sha256
    return "" if found == sha256 else f"has the SHA-256 {found}, and {sha256} was expected"


def _complete(url: str, part: Path, size: int | None, say: Say, pause: Pause) -> None:
    """The whole body in `part`, over as many connections as it takes.

    A try that brought something does not count: a large file over a bad line ends some day.
    """
    tries, wait_s, tag = 0, FIRST_PAUSE_S, ""
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, have, tag, size, say)
            return
        except _Cut as error:
            got = part.stat().st_size if part.exists() else 0
            tag = error.args[1] if len(error.args) > 1 else tag
            if got > have:
                tries, wait_s = 0, FIRST_PAUSE_S
            tries += 1
            if tries == TRIES:
                raise FetchFailed(f"{error.args[0]}, {TRIES} times in a row") from error
            say(f"{error.args[0]} after {got} bytes; again in {wait_s:.0f} s")
            pause(wait_s)
            wait_s *= 2


def _continue(url: str, part: Path, have: int, tag: str, size: int | None, say: Say) -> None:
    """One connection. Raises: _Cut(why, the body's tag) when another one may bring the rest."""
    request = urllib.request.Request(url, headers={"User-Agent": "amibuild"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == WRONG_RANGE and have:
            part.unlink()
            raise _Cut("the server has another file now") from error
        if error.code in PASSING:
            raise _Cut(f"the server answers {error.code}", tag) from error
        raise FetchFailed(f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _Cut(f"no answer: {reason}", tag) from error
    except ValueError as error:  # an address that is none
        raise FetchFailed(str(error)) from error
    with answer:
        strong = answer.headers.get("ETag", "")
        tag = "" if strong.startswith("W/") else strong
        continued = answer.status == http.client.PARTIAL_CONTENT and have > 0
        if continued and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _Cut("the server continued elsewhere")
        announced = answer.headers.get("Content-Length")
        if announced is not None and not LENGTH.fullmatch(announced):
            raise FetchFailed(f"the server announces {announced[:40]!r} bytes")
        whole = None if announced is None else int(announced) + (have if continued else 0)
        if size is not None and whole is not None and whole != size:
            raise FetchFailed(f"has {whole} bytes, and {size} were expected")
        try:
            _pour(answer, part, "ab" if continued else "wb", whole, say)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and _is_of_the_disk(error):
                raise NotWritten(f"can't be written: {error.strerror}") from error
            raise _Cut(f"the connection was cut: {error}", tag) from error
    # Python takes the end of a connection for the end of the body: only the length tells.
    if whole is not None and part.stat().st_size < whole:
        raise _Cut("the connection was cut", tag)


def _is_of_the_disk(error: OSError) -> bool:
    return error.filename is not None or error.errno in OF_THE_DISK


def _pour(answer: Any, part: Path, mode: str, whole: int | None, say: Say) -> None:
    told = time.monotonic()
    with part.open(mode) as out:
        while piece := answer.read1(CHUNK):
            out.write(piece)
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                say(f"{out.tell()} of {whole or 'unknown many'} bytes")


def fetch_all(sources: Sequence[Mapping[str, Any]], blobs: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        sha256, size = source["sha256"], source.get("size")
        target = folder / sha256
        if target.exists():
            continue
        blob = blobs / sha256
        if blob.exists():
            try:
                shutil.copyfile(blob, target)
            except OSError as error:
                target.unlink(missing_ok=True)
                why = f"{source['name']}: can't be written: {error.strerror}"
                raise NotWritten(why) from error
            if wrong := _mismatch(target, sha256, size):
                target.unlink()
                raise FetchFailed(f"{source['name']}: {wrong}")
            continue
        try:
            fetch(source["urls"], target, sha256, size)
        except FetchFailed as error:
            raise FetchFailed(f"{source['name']}: {error}") from error
        say_on_stderr(f"{source['name']}: {target.stat().st_size} bytes, checksum as pinned")


def main() -> int:
    if len(sys.argv) != 3:
        say_on_stderr(f"usage: {sys.argv[0]} SOURCES.json FOLDER")
        return 2
    sources = Path(sys.argv[1])
    try:
        fetch_all(json.loads(sources.read_text()), sources.parent / "blobs", Path(sys.argv[2]))
    except FetchFailed as error:
        say_on_stderr(f"not fetched: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
