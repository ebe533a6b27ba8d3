"""What amibuild itself asks of its endpoint, under /amibuild/ on the same port.

    GET  lifetime    who needs it, as JSON; at once, whatever else goes on
    GET  status      the same, its machines and its store
    GET  join        open for as long as the asker needs the endpoint: its end is the asker's
    POST keep        the endpoint stays when its owner ends (`--on-error keep`)
    POST stop        the endpoint ends
    POST gc          the store's garbage goes; with ?dry-run it is only counted
    GET  console/ID  what the machine wrote to its console; with ?follow all that comes, too
    POST run/ID      runs the body as a script in the machine; its end as JSON

The header X-Amibuild must hold the secret half of the endpoint's access key, which only its user
can read: a web page, another user of this host or a program in a machine reaches the port, too.
"""

from __future__ import annotations

import hmac
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wsgi import ClosingIterator

from amibuild.errors import AmibuildError, HostError
from amibuild.local.gateway import CONTROL, Environ, StartResponse, Wsgi, json_response
from amibuild.local.life import Life
from amibuild.local.visit import hung_up, new_console, run_script

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

    def join(self) -> bool:
        """False once it is about to end: whoever came too late needs the next one."""
        with self.lock:
            if self.over.is_set():
                return False
            self.joined += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.joined -= 1
            self._look()

    def facts(self) -> dict[str, Any]:
        with self.lock:
            return {
                "owned": self.owned,
                "joined": self.joined,
                "kept": self.kept,
                "ending": self.over.is_set(),
            }

    def _look(self) -> None:
        if not (self.owned or self.kept or self.joined):
            self.over.set()


class Control:
    def __init__(
        self,
        lifetime: Lifetime,
        secret: str,
        status: Callable[[], dict[str, Any]],
        life: Callable[[str], Life | None],
        collect: Callable[[bool], dict[str, Any]],
    ) -> None:
        """`status` is the endpoint and its instances, as JSON has it; `life` finds a machine's;
        `collect` frees the store's garbage, or only counts it (True), and says what that was.
        """
        self._lifetime = lifetime
        if not secret:
            raise ValueError("a page that anybody may open")
        self._secret = secret.encode()
        self._facts = status
        self._life = life
        self._collect = collect

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return self._answer(environ, start_response)
        except AmibuildError as error:
            return json_response({"error": error.message}, 500)(environ, start_response)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        name, _, instance = str(environ["PATH_INFO"]).removeprefix(CONTROL).partition("/")
        method = environ["REQUEST_METHOD"]
        said = environ.get("HTTP_X_AMIBUILD", "").encode("latin-1")
        if not hmac.compare_digest(said, self._secret):
            answer = json_response({"error": "the header X-Amibuild does not open this page"}, 403)
        elif (method, name) == ("GET", "lifetime"):
            answer = json_response(self._lifetime.facts())
        elif (method, name) == ("GET", "status"):
            answer = json_response({**self._facts(), **self._lifetime.facts()})
        elif (method, name) == ("GET", "join"):
            if self._lifetime.join():
                return self._joined(environ, start_response)
            answer = json_response({"error": "it is about to end"}, 409)
        elif (method, name) == ("POST", "keep"):
            self._lifetime.keep()
            answer = json_response(self._lifetime.facts())
        elif (method, name) == ("POST", "gc"):
            answer = json_response(self._collect("dry-run" in environ.get("QUERY_STRING", "")))
        elif (method, name) == ("POST", "stop"):
            body = json_response(self._lifetime.facts())(environ, start_response)
            # Once the answer is sent: the process ends in milliseconds after this.
            return ClosingIterator(body, self._lifetime.over.set)  # type: ignore[no-any-return]
        elif (method, name) in {("GET", "console"), ("POST", "run")}:
            life = self._life(instance)
            if life is None:
                answer = json_response({"error": f"there is no instance {instance}"}, 404)
            elif name == "console":
                return self._console(life, environ, start_response)
            else:
                answer = _ran(life, environ)
        else:
            answer = json_response({"error": f"there is no {method} {name}"}, 404)
        return answer(environ, start_response)

    def _console(
        self, life: Life, environ: Environ, start_response: StartResponse
    ) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
        if "follow" not in environ.get("QUERY_STRING", ""):
            yield life.console()
            return
        id_, over = life.order.instance_id, self._lifetime.over
        connection = environ["werkzeug.socket"]
        yield from new_console(life, lambda: self._life(id_) is not life, over, connection)

    def _joined(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
            yield b"joined\n"
            connection = environ["werkzeug.socket"]
            while not self._lifetime.over.is_set():
                if hung_up(connection, _LOOK_S):
                    return
        finally:
            self._lifetime.leave()


def _ran(life: Life, environ: Environ) -> Wsgi:
    script = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        return json_response(run_script(life, script, environ["werkzeug.socket"]))
    except HostError as error:
        return json_response({"error": error.message}, 409)
