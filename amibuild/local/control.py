"""What amibuild itself asks of its endpoint, under /amibuild/ on the same port.

    GET  status   the machines, as JSON
    GET  join     open for as long as the asker needs the endpoint: its end is the asker's
    POST keep     the endpoint stays when its owner ends (`--on-error keep`)
    POST stop     the endpoint ends

A POST must carry the header X-Amibuild: a web page can't send one to another origin.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wsgi import ClosingIterator

from amibuild.local.gateway import Environ, StartResponse, json_response

_LOOK_S = 0.5


@dataclass
class Lifetime:
    """Who needs the endpoint: its owner, those who joined, or nobody any longer."""

    owned: bool
    kept: bool = False
    serving: bool = False
    joined: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def owner_gone(self) -> None:
        with self.lock:
            self.owned = False
            self._look()
        if self.over.is_set() and not self.serving:
            # The main thread may be a minute deep in making the base image.
            os.kill(os.getpid(), signal.SIGTERM)

    def keep(self) -> None:
        with self.lock:
            self.kept = True

    def join(self) -> None:
        with self.lock:
            self.joined += 1

    def leave(self) -> None:
        with self.lock:
            self.joined -= 1
            self._look()

    def _look(self) -> None:
        if not (self.owned or self.kept or self.joined):
            self.over.set()


class Control:
    def __init__(self, lifetime: Lifetime, status: Callable[[], dict[str, Any]]) -> None:
        """`status` is the endpoint and its instances, as JSON has it."""
        self._lifetime = lifetime
        self._facts = status

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        name = str(environ["PATH_INFO"]).rpartition("/")[2]
        method = environ["REQUEST_METHOD"]
        if method == "POST" and "HTTP_X_AMIBUILD" not in environ:
            answer = json_response({"error": "the header X-Amibuild is missing"}, 403)
        elif (method, name) == ("GET", "status"):
            answer = json_response(self._status())
        elif (method, name) == ("GET", "join"):
            return self._join(environ, start_response)
        elif (method, name) == ("POST", "keep"):
            self._lifetime.keep()
            answer = json_response(self._status())
        elif (method, name) == ("POST", "stop"):
            body = json_response(self._status())(environ, start_response)
            # Once the answer is sent: the process ends in milliseconds after this.
            return ClosingIterator(body, self._lifetime.over.set)  # type: ignore[no-any-return]
        else:
            answer = json_response({"error": f"there is no {method} {name}"}, 404)
        return answer(environ, start_response)

    def _status(self) -> dict[str, Any]:
        lifetime = self._lifetime
        return {
            **self._facts(),
            "owned": lifetime.owned,
            "joined": lifetime.joined,
            "kept": lifetime.kept,
            "ending": lifetime.over.is_set(),
        }

    def _join(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        self._lifetime.join()
        try:
            start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
            yield b"joined\n"
            connection = environ["werkzeug.socket"]
            while not self._lifetime.over.is_set():
                readable, _, _ = select.select([connection], [], [], _LOOK_S)
                if readable and not connection.recv(1):
                    return
        finally:
            self._lifetime.leave()
