"""The door of the endpoint: every HTTP request passes here before moto sees it.

It keeps the log of calls, lets the ordered failures happen, turns what moto can't do into an AWS
error that names it, and answers `/amibuild/` itself. Requests without a signature are refused: a
web page that a person visits can reach 127.0.0.1 too, but it can't sign.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from amibuild.local.faults import Fault, Faults

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]
CONTROL = "/amibuild/"
# HTTP statuses of the codes that are not the caller's fault (EC2 API reference, "Server errors").
_SERVER_CODES = {
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServerError": 500,
    "InsufficientInstanceCapacity": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "Unavailable": 503,
}
# Not an AWS code: the answer never arrives, as when a connection breaks.
LOST = "ConnectionLost"


@dataclass(frozen=True)
class Call:
    """Which operation of which service a request is. `json` is how that service words errors."""

    service: str
    operation: str
    signed: bool
    json: bool = False


class CallLog:
    """One JSON object a line: when, what, how it went, how long it took."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = path.open("a", buffering=1) if path else None
        self._lock = threading.Lock()

    def write(self, call: Call, status: int, error: str, began: float, took_s: float) -> None:
        if self._file is None:
            return
        entry = {
            "time": datetime.fromtimestamp(began, UTC).isoformat(timespec="milliseconds"),
            "service": call.service,
            "operation": call.operation,
            "status": status,
            "error": error,
            "ms": round(took_s * 1000, 1),
        }
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        if self._file is not None:
            with self._lock:
                self._file.close()


class Gateway:
    def __init__(self, app: Wsgi, control: Wsgi, faults: Faults, calls: CallLog) -> None:
        self._app = app
        self._control = control
        self._faults = faults
        self._calls = calls

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(CONTROL):
            return self._control(environ, start_response)
        began, clock = time.time(), time.perf_counter()
        call = read_call(environ)
        seen: dict[str, Any] = {"status": 0, "error": ""}

        def watch(status: str, headers: Any, *rest: Any) -> Any:
            seen["status"] = int(status.split()[0])
            return start_response(status, headers, *rest)

        try:
            return self._answer(call, environ, watch, seen)
        finally:
            took = time.perf_counter() - clock
            self._calls.write(call, seen["status"], seen["error"], began, took)

    def _answer(
        self, call: Call, environ: Environ, start_response: StartResponse, seen: dict[str, Any]
    ) -> Iterable[bytes]:
        def refuse(code: str, message: str) -> Iterable[bytes]:
            seen["error"] = code
            return error_response(call, code, message)(environ, start_response)

        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        if path.startswith("/moto-api"):
            return refuse("UnsupportedOperation", "moto's own interface is closed here")
        if not call.signed and method not in {"GET", "HEAD"}:
            return refuse("MissingAuthenticationToken", "Request must be signed")
        if call.service == "s3" and "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
            # What many HTTP clients send with any body; Flask would take it for a form, and moto
            # then keeps an empty object.
            environ["CONTENT_TYPE"] = "binary/octet-stream"
        fault = self._faults.next(call.operation)
        if fault is not None and not fault.after:
            return self._fail(fault, environ, refuse)
        try:
            body = self._app(environ, start_response if fault is None else _nobody)
        except NotImplementedError as error:
            log.info("%s: %s", call.operation, error)
            return refuse(
                "UnsupportedOperation", f"the local endpoint has no {call.operation}: {error}"
            )
        except Exception as error:  # moto's bugs must not reach clients as HTML
            if type(error).__name__ == "OperationNotFoundError":
                return refuse("InvalidAction", f"The action {call.operation} is not valid")
            log.exception("%s failed", call.operation)
            return refuse("LocalEndpointFailure", f"{call.operation}: {error!r}")
        if fault is None:
            return body
        for _ in body:
            pass
        return self._fail(fault, environ, refuse)

    def _fail(
        self, fault: Fault, environ: Environ, refuse: Callable[[str, str], Iterable[bytes]]
    ) -> Iterable[bytes]:
        if fault.code == LOST:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("on order")
        return refuse(fault.code, f"{fault.what} fails here because it was ordered to")


def _nobody(*_: Any) -> Callable[[bytes], None]:
    return lambda _: None


def read_call(environ: Environ) -> Call:
    """Leaves the body as it was, where it has to look into it."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    credential = (query.get("X-Amz-Credential") or [""])[0] or authorization
    scope = credential.split(",")[0].split("/")
    service = scope[3] if len(scope) > 4 else "s3"
    signed = bool(authorization or credential or query.get("Signature"))
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return Call(service, target.rpartition(".")[2], signed, json=True)
    if service == "s3":
        return Call(service, _s3_operation(environ, query), signed)
    if "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        query = parse_qs(body.decode(errors="replace"))
    action = (query.get("Action") or [environ["REQUEST_METHOD"]])[0]
    return Call(service, action, signed)


def _s3_operation(environ: Environ, query: dict[str, list[str]]) -> str:
    """The common operations by their names, the others by their method."""
    method = str(environ["REQUEST_METHOD"])
    path = str(environ.get("PATH_INFO", "")).strip("/")
    of_object = "/" in path
    names = {
        ("GET", False): "ListObjectsV2" if path else "ListBuckets",
        ("GET", True): "GetObject",
        ("HEAD", False): "HeadBucket",
        ("HEAD", True): "HeadObject",
        ("PUT", False): "CreateBucket",
        ("PUT", True): "PutObject",
        ("DELETE", False): "DeleteBucket",
        ("DELETE", True): "DeleteObject",
    }
    plain = not (set(query) - {"list-type", "prefix", "delimiter", "max-keys", "encoding-type"})
    signed_url = any(name.startswith("X-Amz-") for name in query)
    if plain or signed_url:
        return names.get((method, of_object), method)
    return method


def error_response(call: Call, code: str, message: str) -> Wsgi:
    """An error in the words of the service's protocol, with EC2's statuses."""
    status, request_id = _SERVER_CODES.get(code, 400), str(uuid.uuid4())
    if call.json:
        body = json.dumps({"__type": code, "message": message})
        answer: Wsgi = Response(
            body,
            status,
            {"x-amzn-RequestId": request_id, "x-amzn-ErrorType": code},
            content_type="application/x-amz-json-1.1",
        )
        return answer
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.service == "ec2":
        inside = f"<Response><Errors>{error}</Error></Errors><RequestID>{request_id}</RequestID>"
        body = f"{inside}</Response>"
    elif call.service == "s3":
        body = f"{error}<RequestId>{request_id}</RequestId></Error>"
    else:
        inside = f"<ErrorResponse>{error}</Error><RequestId>{request_id}</RequestId>"
        body = f"{inside}</ErrorResponse>"
    xml: Wsgi = Response(
        f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', status, content_type="text/xml"
    )
    return xml


def json_response(body: object, status: int = 200) -> Wsgi:
    answer: Wsgi = Response(json.dumps(body) + "\n", status, content_type="application/json")
    return answer
