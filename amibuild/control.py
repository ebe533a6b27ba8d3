"""An endpoint seen from outside: what it wrote of itself, whether it lives, what its page answers.

The page is `/amibuild/` on the endpoint's own port (`amibuild.local.control` is its other side).
"""

from __future__ import annotations

import http.client
import json
import os
import select
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
ASK_S = 5.0


def written(data: Path) -> dict[str, Any] | None:
    """What the endpoint wrote about itself when it was ready; None once its process has ended.

    Its port may be another endpoint's by then, which is not ours to join or to stop.
    """
    try:
        facts = json.loads((data / "local" / "endpoint.json").read_text())
        if has_ended(int(facts["pid"])):
            return None
        return {
            "pid": int(facts["pid"]),
            "port": int(facts["port"]),
            "machine": facts["machine"],
            # An endpoint of an older amibuild does not say.
            "settings": dict(facts.get("settings", {})),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def has_ended(pid: int) -> bool:
    """Whether an endpoint's process is no more, down to its last thread: its locks are free then.

    Its words are gone before that, and its number may be somebody else's after it.
    """
    if not hasattr(os, "pidfd_open"):  # not on Linux: it will be noticed in other ways
        return False
    try:
        process = os.pidfd_open(pid)
    except OSError:  # nobody's number, or that of another's thread
        return True
    try:
        look = select.poll()
        look.register(process, select.POLLIN)
        if look.poll(0):
            return True
    finally:
        os.close(process)
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return bool(words) and b"amibuild" not in words


def ask(port: int, method: str, name: str, *, timeout_s: float = ASK_S) -> dict[str, Any] | None:
    """The answer of an endpoint's control page; None when nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(method, f"/amibuild/{name}", headers={"X-Amibuild": "1"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return answer
