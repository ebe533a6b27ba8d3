"""Fetching: over cut connections and bad servers, and never anything but what is pinned."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.library.every_service.fetch import TRIES, FetchFailed, fetch, shown

SCRIPT = Path(__file__).parents[2] / "amibuild/library/every_service/fetch.py"
BODY = bytes(i * 7 % 251 for i in range(300_000))
SHA256 = hashlib.sha256(BODY).hexdigest()


NO_LENGTHS = ("abc", "-1", "+5", "1_0", "9" * 5000)


@dataclass
class Server:
    """What the next answers do; with none left it behaves. `ranges` are those it was asked for."""

    url: str = ""
    body: bytes = BODY
    tag: str = '"one"'
    plan: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers["Range"])
        do = self.plan.pop(0) if self.plan else ""
        if do.isdigit() and do not in NO_LENGTHS:
            request.send_error(int(do))
            return
        begin = 0
        wanted = request.headers["Range"]
        if wanted and do != "no range" and request.headers["If-Range"] in (None, self.tag):
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if begin else 200)
        if begin:
            last = len(self.body) - 1
            request.send_header("Content-Range", f"bytes {begin}-{last}/{len(self.body)}")
        request.send_header("ETag", self.tag)
        length = str(len(self.body) - begin)
        request.send_header("Content-Length", do if do in NO_LENGTHS else length)
        request.end_headers()
        rest = self.body[begin:]
        if do == "change":
            self.body, self.tag = BODY[::-1], '"two"'
        cut = do in ("cut", "change")
        request.wfile.write(rest[: len(rest) // 3] if cut else rest)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        served.url = f"http://127.0.0.1:{http.server_port}/file?signature=hidden"
        yield served
        http.shutdown()


@dataclass
class Told:
    lines: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)


def get(server: Server, target: Path, sha256: str | None = SHA256, size: int | None = None) -> Told:
    told = Told()
    fetch([server.url], target, sha256, size, say=told.lines.append, pause=told.pauses.append)
    return told


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "file"


@pytest.fixture(autouse=True)
def folder(target: Path) -> Path:
    target.parent.mkdir()
    return target.parent


def test_a_whole_answer_is_the_file(server: Server, target: Path) -> None:
    told = get(server, target, size=len(BODY))
    assert target.read_bytes() == BODY
    assert server.ranges == [None]
    assert told.pauses == []


def test_a_cut_connection_is_taken_up_where_it_left_off(server: Server, target: Path) -> None:
    server.plan = ["cut", "cut", "cut"]
    get(server, target)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-", "bytes=166666-", "bytes=211110-"]


def test_progress_renews_the_tries(server: Server, target: Path) -> None:
    server.plan = ["cut"] * (TRIES + 3)
    told = get(server, target)
    assert target.read_bytes() == BODY
    assert set(told.pauses) == {1.0}


def test_a_server_without_ranges_is_begun_anew(server: Server, target: Path) -> None:
    server.plan = ["cut", "no range"]
    get(server, target)
    assert target.read_bytes() == BODY


def test_a_file_that_changed_in_between_is_never_mixed(server: Server, target: Path) -> None:
    server.plan = ["change"]
    get(server, target, hashlib.sha256(BODY[::-1]).hexdigest())
    assert target.read_bytes() == BODY[::-1]


def test_a_busy_server_is_asked_again_with_growing_pauses(server: Server, target: Path) -> None:
    server.plan = ["503", "429", "500"]
    told = get(server, target)
    assert target.read_bytes() == BODY
    assert told.pauses == [1.0, 2.0, 4.0]


def test_it_gives_up_in_the_end(server: Server, target: Path) -> None:
    server.plan = ["503"] * TRIES
    with pytest.raises(FetchFailed, match=f"the server answers 503, {TRIES} times in a row"):
        get(server, target)
    assert list(target.parent.iterdir()) == []


def test_a_refusal_is_not_repeated(server: Server, target: Path) -> None:
    server.plan = ["403"]
    with pytest.raises(FetchFailed, match="403"):
        get(server, target)
    assert len(server.ranges) == 1


def test_a_wrong_checksum_leaves_nothing(server: Server, target: Path) -> None:
    with pytest.raises(FetchFailed, match=f"has the SHA-256 {SHA256}, and {'b' * 64} was expected"):
        get(server, target, "b" * 64)
    assert list(target.parent.iterdir()) == []


def test_a_wrong_size_is_refused_before_the_body_came(server: Server, target: Path) -> None:
    with pytest.raises(FetchFailed, match=r"has 300000 bytes, and 7 were expected"):
        get(server, target, size=7)
    assert list(target.parent.iterdir()) == []


def test_the_next_address_is_tried_when_the_first_lacks_it(server: Server, target: Path) -> None:
    server.plan = ["404"]
    told: list[str] = []
    fetch([server.url, server.url], target, SHA256, say=told.append)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("length", NO_LENGTHS)
def test_a_length_that_is_none_is_refused(server: Server, target: Path, length: str) -> None:
    server.plan = [length]
    with pytest.raises(FetchFailed, match="the server announces '"):
        get(server, target)
    assert list(target.parent.iterdir()) == []


def test_nobody_listens(server: Server, target: Path) -> None:
    pauses: list[float] = []
    with pytest.raises(FetchFailed, match="no answer"):
        fetch(["http://127.0.0.1:1/x"], target, SHA256, say=lambda _: None, pause=pauses.append)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_what_is_said_holds_no_signature(server: Server, target: Path) -> None:
    server.plan = ["cut", "404"]
    told: list[str] = []
    with pytest.raises(FetchFailed) as failed:
        fetch([server.url], target, SHA256, say=told.append, pause=lambda _: None)
    assert any(line.endswith("/file") for line in told)
    assert "hidden" not in " ".join([*told, str(failed.value)])
    assert shown("https://me:secret@host/a?token=b#c") == "https://host/a"


def script(tmp_path: Path, *sources: dict[str, object], before: str = "") -> proc.Finished:
    """`before` are lines of the shell that runs it."""
    (tmp_path / "sources.json").write_text(json.dumps(sources))
    call: list[str | Path] = [
        *(("unshare", "--mount") if "mount" in before else ()),
        *("sh", "-c", f'{before}exec "$@"', "sh"),
        sys.executable,
        SCRIPT,
        tmp_path / "sources.json",
        tmp_path / "fetched",
    ]
    return proc.run(call, check=False)


def test_as_a_program_it_takes_what_travelled_with_the_step(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / SHA256).write_bytes(BODY)
    done = script(tmp_path, {"name": "x", "sha256": SHA256, "size": None, "urls": []})
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "fetched" / SHA256).read_bytes() == BODY


def test_as_a_program_it_refuses_wrong_bytes_that_travelled(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / SHA256).write_bytes(b"other")
    done = script(tmp_path, {"name": "x.zip", "sha256": SHA256, "urls": []})
    assert done.exit_code == 1
    assert b"not fetched: x.zip: has the SHA-256" in done.stderr
    assert list((tmp_path / "fetched").iterdir()) == []


def test_as_a_program_it_fetches(tmp_path: Path, server: Server) -> None:
    done = script(tmp_path, {"name": "x", "sha256": SHA256, "urls": [server.url]})
    assert done.exit_code == 0, done.stderr
    assert b"hidden" not in done.stderr
    assert (tmp_path / "fetched" / SHA256).read_bytes() == BODY


@pytest.mark.parametrize("travelled", [True, False])
def test_a_disk_that_takes_no_more_is_told_at_once(
    tmp_path: Path, server: Server, travelled: bool
) -> None:
    if travelled:
        (tmp_path / "blobs").mkdir()
        (tmp_path / "blobs" / SHA256).write_bytes(BODY)
    source: dict[str, object] = {"name": "x", "sha256": SHA256, "urls": [server.url] * 2}
    done = script(tmp_path, source, before="ulimit -f 100\n")  # blocks of 512 bytes
    assert done.exit_code == 1
    assert done.stderr.endswith(b"not fetched: x: can't be written: File too large\n")
    assert len(server.ranges) == (0 if travelled else 1)
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")
def test_a_disk_that_is_full_is_told_in_its_own_words(tmp_path: Path, server: Server) -> None:
    (tmp_path / "fetched").mkdir()
    small = f"mount -t tmpfs -o size=64k none {tmp_path}/fetched || exit\n"
    source: dict[str, object] = {"name": "x", "sha256": SHA256, "urls": [server.url]}
    done = script(tmp_path, source, before=small)
    assert done.stderr.endswith(b"not fetched: x: can't be written: No space left on device\n")
    assert len(server.ranges) == 1
