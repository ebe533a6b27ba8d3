"""The door of the endpoint: every HTTP request passes here before moto sees it.

It keeps the log of calls, lets the ordered failures happen, refuses what the endpoint does not
have in AWS's words, and answers `/amibuild/` itself. Requests without a key that the endpoint has
given out are refused: a web page that a person visits can reach 127.0.0.1 too (keys.py).
"""

from __future__ import annotations

import io
import json
import logging
import re
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from amibuild.errors import HostError
from amibuild.local.faults import Fault, Faults

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]
CONTROL = "/amibuild/"
# HTTP statuses other than 400: of codes that are not the caller's fault, and of keys that open
# nothing (EC2 API reference, "Error codes"; S3 API reference, "Error responses").
_STATUSES = {
    "AccessDenied": 403,
    "AuthFailure": 401,
    "InvalidAccessKeyId": 403,
    "InvalidClientTokenId": 403,
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServerError": 500,
    "InternalServiceError": 500,
    "InsufficientAddressCapacity": 500,
    "InsufficientCapacity": 500,
    "InsufficientInstanceCapacity": 500,
    "InsufficientHostCapacity": 500,
    "InsufficientReservedInstanceCapacity": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "Unavailable": 503,
}
# Not AWS codes. The connection breaks, as when a proxy dies; or nothing comes, until the client
# gives up or the endpoint ends.
LOST = "ConnectionLost"
SILENT = "NoAnswer"
_LOOK_S = 0.1
_STRANGERS_BYTES = 4096
# A request without a signature names its service by the version of its API only.
_VERSIONS = {"2016-11-15": "ec2", "2011-06-15": "sts", "2010-05-08": "iam"}
_XML_CODE = re.compile(rb"<Code>([^<]+)</Code>")
_JSON_CODE = re.compile(rb'"__type"\s*:\s*"(?:[^"#]*#)?([^"]+)"')
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base 10: (.+)")
_REQUEST_ID = "x-amzn-requestid"

# Code and message, where an operation of a service is refused at the door.
Judge = Callable[[str, str], tuple[str, str] | None]
# The words by which a fault may pick a call: every value in the request, and what follows from it.
Words = Callable[["Call"], frozenset[str]]


@dataclass(frozen=True)
class Call:
    """Which operation of which service a request is.

    `key` is the id of the access key that it is signed with, empty without one. `json` is how
    that service words errors; `body` is the request's, where it is no file.
    """

    service: str
    operation: str
    key: str
    region: str = ""
    json: bool = False
    body: bytes = b""


@dataclass
class Answer:
    """What goes back to the client."""

    status: int
    headers: list[tuple[str, str]]
    body: list[bytes]
    error: str = ""

    @property
    def request_id(self) -> str:
        return next((v for k, v in self.headers if k.lower() == _REQUEST_ID), "")

    @property
    def is_page(self) -> bool:
        """HTML is no answer of any AWS service: it is Flask's, about a bug or an odd path."""
        kind = next((v for k, v in self.headers if k.lower() == "content-type"), "")
        return kind.startswith("text/html") and self.status >= 400


class CallLog:
    """One JSON object a line: when, what, how it went, how long it took, under which id."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = path.open("a", buffering=1) if path else None
        self._lock = threading.Lock()

    def write(self, call: Call, answer: Answer, began: float, took_s: float) -> None:
        if self._file is None:
            return
        entry = {
            "time": datetime.fromtimestamp(began, UTC).isoformat(timespec="milliseconds"),
            "service": call.service,
            "operation": call.operation,
            "status": answer.status,
            "error": answer.error,
            "ms": round(took_s * 1000, 1),
            "request_id": answer.request_id,
        }
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        if self._file is not None:
            with self._lock:
                self._file.close()


@dataclass
class Gateway:
    """`over` is set when the endpoint ends: nobody is kept waiting then."""

    app: Wsgi
    control: Wsgi
    faults: Faults
    calls: CallLog
    judge: Judge
    words: Words
    opens: Callable[[str], bool]
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(CONTROL) and "HTTP_X_AMIBUILD" in environ:  # or a bucket of that name
            return self.control(environ, start_response)
        began, clock = time.time(), time.perf_counter()
        call = read_call(environ, self.opens)
        answer = Answer(0, [], [], LOST)
        try:
            answer = self._answer(call, environ)
        except ConnectionResetError as error:
            answer.error = str(error)
            raise
        finally:
            self.calls.write(call, answer, began, time.perf_counter() - clock)
        start_response(f"{answer.status} {_REASONS.get(answer.status, 'Error')}", answer.headers)
        return answer.body

    def _answer(self, call: Call, environ: Environ) -> Answer:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith("/moto-api"):
            return refusal(call, "UnsupportedOperation", "moto's own interface is closed here")
        if not self.opens(call.key):
            return refusal(call, *_not_opened(call))
        if call.service == "s3" and "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
            # What many HTTP clients send with any body; Flask would take it for a form, and moto
            # then keeps an empty object.
            environ["CONTENT_TYPE"] = "binary/octet-stream"
        if call.json and not _is_object(call.body):
            return refusal(call, "SerializationException", "")
        judged = self.judge(call.service, call.operation)
        if judged is not None:
            return refusal(call, *judged)
        fault = self.faults.next(call.operation, lambda: self.words(call))
        if fault is not None and not fault.after:
            return self._fail(fault, call, environ)
        answer = self._carry_out(call, environ)
        return answer if fault is None else self._fail(fault, call, environ)

    def _carry_out(self, call: Call, environ: Environ) -> Answer:
        """What moto and the overlay make of it. Their bugs must not reach clients as HTML."""
        answer = Answer(0, [], [])

        def take(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            answer.status, answer.headers = int(status.split()[0]), headers
            return answer.body.append

        try:
            answer.body += self.app(environ, take)
        except NotImplementedError as error:
            log.info("%s: %s", call.operation, error)
            return refusal(
                call,
                "UnsupportedOperation",
                f"{call.operation}: the local endpoint does not have it ({error})",
            )
        except HostError as error:  # a full disk, a damaged file: no bug of anybody's
            log.warning("%s: %s", call.operation, error)
            return refusal(call, "LocalEndpointFailure", error.message)
        except Exception as error:
            number = _NO_NUMBER.search(str(error))
            if number is not None:
                return refusal(call, "InvalidParameterValue", f"{number[1]} is no number")
            if type(error).__name__ == "OperationNotFoundError":
                return refusal(call, "InvalidAction", f"The action {call.operation} is not valid")
            log.exception("%s failed", call.operation)
            return refusal(
                call,
                "UnsupportedOperation",
                f"{call.operation}: the local endpoint can't do this: {error!r}",
            )
        if answer.is_page and environ["REQUEST_METHOD"] != "HEAD":  # which has no body of any kind
            log.warning("%s: %d, as a page", call.operation, answer.status)
            return refusal(
                call, "UnsupportedOperation", f"{call.operation}: the local endpoint can't do this"
            )
        if call.service == "ec2":
            _identify(answer)
        if answer.status >= 400:
            answer.error = _code(b"".join(answer.body)) or str(answer.status)
        return answer

    def _fail(self, fault: Fault, call: Call, environ: Environ) -> Answer:
        if fault.code == SILENT:
            self._say_nothing(environ["werkzeug.socket"])
            raise ConnectionResetError(SILENT)
        if fault.code == LOST:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError(LOST)
        return refusal(call, fault.code, f"{fault.what} fails here because it was ordered to")

    def _say_nothing(self, client: socket.socket) -> None:
        """Until the client hangs up: its end of the connection can be read then."""
        while not self.over.is_set():
            readable, _, _ = select.select([client], [], [], _LOOK_S)
            if readable:
                return


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _not_opened(call: Call) -> tuple[str, str]:
    """Code and message. Sources: EC2, S3, IAM and Systems Manager API references, common errors."""
    if not call.key:
        if call.service == "s3":
            return "AccessDenied", "Access Denied"
        return "MissingAuthenticationToken", "Request must be signed"
    if call.service == "ec2":
        return "AuthFailure", "AWS was not able to validate the provided access credentials"
    if call.service == "s3":
        message = "The AWS Access Key Id you provided does not exist in our records."
        return "InvalidAccessKeyId", message
    code = "UnrecognizedClientException" if call.json else "InvalidClientTokenId"
    return code, "The security token included in the request is invalid."


_REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 304: "Not Modified"}


def _identify(answer: Answer) -> None:
    """moto writes the same id into every answer of EC2: the client shall have the log's."""
    body = b"".join(answer.body).replace(b">request-id</", f">{answer.request_id}</".encode())
    answer.body = [body]
    answer.headers = [(k, v) for k, v in answer.headers if k.lower() != "content-length"]
    answer.headers.append(("Content-Length", str(len(body))))


def _code(body: bytes) -> str:
    found = _XML_CODE.search(body) or _JSON_CODE.search(body)
    return found[1].decode(errors="replace") if found else ""


def read_call(environ: Environ, opens: Callable[[str], bool] = bool) -> Call:
    """Leaves the body as it was, where it has to look into it.

    Of a stranger's, one without a key that `opens`, so much is read as names the service.
    """
    query = parse_qs(environ.get("QUERY_STRING", ""))
    key, region, service = _signer(environ.get("HTTP_AUTHORIZATION", ""), query)
    form = "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "")
    if service == "s3" and (key or not form):
        return Call(service, _s3_operation(environ), key, region)
    length = str(environ.get("CONTENT_LENGTH") or "0")
    size = int(length) if length.isdecimal() else 0
    body = environ["wsgi.input"].read(size if opens(key) else min(size, _STRANGERS_BYTES))
    environ["wsgi.input"] = io.BytesIO(body)
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return Call(service, target.rpartition(".")[2], key, region, json=True, body=body)
    if form:
        query = parse_qs(body.decode(errors="replace"))
    if not key:
        service = _VERSIONS.get((query.get("Version") or [""])[0], service)
    action = (query.get("Action") or [environ["REQUEST_METHOD"]])[0]
    return Call(service, action, key, region, body=body)


def _signer(authorization: str, query: dict[str, list[str]]) -> tuple[str, str, str]:
    """Key, region and service of a signature, in the header or in a presigned URL.

    Signature version 4 names all three; version 2, which S3's older URLs have, the key only.
    """
    old = authorization.removeprefix("AWS ").partition(":")[0]
    if authorization.startswith("AWS "):
        return old, "", "s3"
    stated = (query.get("X-Amz-Credential") or [""])[0] or authorization
    scope = stated.partition("Credential=")[2] or stated
    parts = scope.split(",")[0].split("/")
    if len(parts) > 4:
        return parts[0], parts[2], parts[3]
    return (query.get("AWSAccessKeyId") or [""])[0], "", "s3"


def _s3_operation(environ: Environ) -> str:
    """By S3's own routes: method, path and the words of the query. The method where none fits."""
    from moto.core.request import Request
    from moto.core.routing import get_service_router

    try:
        operation, _ = get_service_router("s3").match(Request(environ))
    except HTTPException:
        return str(environ["REQUEST_METHOD"])
    return str(operation.name)


def refusal(call: Call, code: str, message: str) -> Answer:
    """An error in the words of the service's protocol, with EC2's statuses."""
    status, request_id = _STATUSES.get(code, 400), str(uuid.uuid4())
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    kind = "text/xml"
    if call.json:
        kind = "application/x-amz-json-1.1"
        body = json.dumps({"__type": code, "message": message})
    elif call.service == "ec2":
        body = f"<Response><Errors>{error}</Error></Errors><RequestID>{request_id}</RequestID>"
        body = f"{_XML}{body}</Response>"
    elif call.service == "s3":
        body = f"{_XML}{error}<RequestId>{request_id}</RequestId></Error>"
    else:
        body = f"<ErrorResponse>{error}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        body = f"{_XML}{body}"
    said = body.encode()
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(said))),
        ("x-amzn-RequestId", request_id),
    ]
    if call.json:
        headers.append(("x-amzn-ErrorType", code))
    return Answer(status, headers, [said], code)


_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def json_response(body: object, status: int = 200) -> Wsgi:
    answer: Wsgi = Response(json.dumps(body) + "\n", status, content_type="application/json")
    return answer
