"""`data-volume` where the metadata service answers this or that: only a 404 means that there is no
volume. The program runs here, up to where it would wait for a disk."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest

from amibuild import proc

PROGRAM = files("amibuild.library").joinpath("every_service/bin/data-volume").read_bytes()
VOLUME = "vol-0123456789abcdef0"

Metadata = Callable[[int, list[int]], str]


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    """Starts one that answers a token's request with a status, and the tag's with each in turn."""
    servers = []

    def start(token: int, tag: list[int]) -> str:
        left = list(tag)

        class Answers(http.server.BaseHTTPRequestHandler):
            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_PUT(self) -> None:
                self.answer(token, "a-token")

            def do_GET(self) -> None:
                assert self.headers["X-aws-ec2-metadata-token"] == "a-token"
                assert self.path == "/meta-data/tags/instance/amibuild:volume:game"
                status = left.pop(0) if len(left) > 1 else left[0]
                self.answer(status, VOLUME if status == 200 else "<html>no</html>")

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing: the test's output is for failures."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def data_volume(imds: str) -> proc.Finished:
    """A volume that is named does not come: no wait for it."""
    given = [f"IMDS={imds}", "VOLUME_WAIT_S=0"]
    return proc.run(["env", *given, "bash", "-s", "game"], stdin=PROGRAM, check=False)


def test_without_such_a_tag_the_state_is_on_the_root_disk(metadata: Metadata) -> None:
    done = data_volume(metadata(200, [404]))
    assert done.exit_code == 0
    assert done.text == "no volume is named for game: its state stays on the root disk\n"


@pytest.mark.parametrize("tag", [[200], [503, 200]], ids=["at once", "at the second try"])
def test_the_volume_that_the_tag_names_is_waited_for(metadata: Metadata, tag: list[int]) -> None:
    done = data_volume(metadata(200, tag))
    assert done.exit_code == 1
    assert f"{VOLUME} was named for game and did not come" in done.stderr.decode()


@pytest.mark.parametrize(("token", "tag"), [(200, 403), (403, 200), (404, 404)])
def test_an_answer_that_says_nothing_of_a_tag_is_a_failure(
    metadata: Metadata, token: int, tag: int
) -> None:
    done = data_volume(metadata(token, [tag]))
    assert done.exit_code == 1
    assert "whether game has a volume can't be told" in done.stderr.decode()


def test_a_metadata_service_that_is_not_there_is_a_failure(metadata: Metadata) -> None:
    address = metadata(200, [200]).rpartition(":")[0]
    done = data_volume(f"{address}:1")
    assert done.exit_code != 0
    assert done.text == ""
