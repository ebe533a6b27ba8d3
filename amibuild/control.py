"""An endpoint seen from outside: what it wrote of itself, whether it lives, what its page answers.

The page is `/amibuild/` on the endpoint's own port (`amibuild.local.control` is its other side).
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amibuild.errors import HostError
from amibuild.proc import has_ended

HOST = "127.0.0.1"
# It answers in milliseconds, but its host may be busy with ten machines that boot.
ASK_S = 15.0
# A look at all of its store, too.
STATUS_S = 60.0


@dataclass(frozen=True)
class Announced:
    """What an endpoint wrote about itself when it was ready. `secret` opens its page.

    `pid` and `began` are its process's (proc.py).
    """

    pid: int
    began: int | None
    port: int
    machine: str
    settings: Mapping[str, Any]
    access_key_id: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def has_ended(self) -> bool:
        return has_ended(self.pid, self.began)


class Silent(HostError):
    """It runs, and does not answer: nobody knows what it does, or who uses it."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"the local endpoint (process {pid}) runs, but it does not answer",
            hint="amibuild local down --force ends it with its machines",
        )


def announced(data: Path) -> Announced | None:
    """None once its process has ended.

    Its port may be another endpoint's by then, which is not ours to join or to stop.
    """
    try:
        facts = read(json.loads((data / "local" / "endpoint.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if facts.has_ended else facts


def read(facts: Mapping[str, Any]) -> Announced:
    """Raises: ValueError, KeyError, TypeError."""
    return Announced(
        pid=int(facts["pid"]),
        began=facts["began"],
        port=int(facts["port"]),
        machine=facts["machine"],
        settings=dict(facts["settings"]),
        access_key_id=facts["access_key_id"],
        secret=facts["secret_access_key"],
    )


def request(
    endpoint: Announced,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    timeout_s: float | None = None,
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """The answer's head, and the connection that the caller closes.

    `timeout_s` is for each wait; math.inf waits as long as it takes.
    Raises: Silent; OSError and http.client.HTTPException when nobody listens: it ends, or has.
    """
    limit = ASK_S if timeout_s is None else timeout_s
    connection = http.client.HTTPConnection(
        HOST, endpoint.port, timeout=None if limit == math.inf else limit
    )
    try:
        connection.request(method, f"/amibuild/{path}", body, {"X-Amibuild": endpoint.secret})
        return connection, connection.getresponse()
    except TimeoutError as error:
        connection.close()
        if endpoint.has_ended:
            raise ConnectionError("it has ended") from error
        raise Silent(endpoint.pid) from error
    except BaseException:
        connection.close()
        raise


def ask(
    endpoint: Announced, method: str, path: str, *, timeout_s: float | None = None
) -> dict[str, Any] | None:
    """What its page answers; None when nobody listens: it ends, or has ended.

    Raises: Silent; HostError with the reason why it can't.
    """
    try:
        connection, answer = request(endpoint, method, path, timeout_s=timeout_s)
    except (OSError, http.client.HTTPException):
        return None
    try:
        said: dict[str, Any] = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise HostError(f"the local endpoint can't do that: {said.get('error')}")
    return said
