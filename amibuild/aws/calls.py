"""What is asked of AWS, for `--debug`: a line for each call, without what it asked with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

CALL, BEGAN, TRIES = "amibuild_call", "amibuild_began", "amibuild_tries"


class Operation(Protocol):
    """botocore's OperationModel, of which only this is needed here."""

    @property
    def name(self) -> str: ...

    @property
    def service_model(self) -> Service: ...


class Service(Protocol):
    @property
    def service_name(self) -> str: ...


class Emitter(Protocol):
    """Where botocore tells of each call."""

    def register(self, event_name: str, handler: Callable[..., Any]) -> None: ...


class Calls:
    """The subscriber of a session's events. A call's own state is in botocore's context for it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic

    def listen(self, events: Emitter) -> None:
        events.register("before-call", self.begins)
        events.register("needs-retry", self.tried)
        events.register("after-call", self.ends)
        events.register("after-call-error", self.fails)

    def begins(self, *, model: Operation, context: dict[str, Any], **_: object) -> None:
        context[CALL] = f"{model.service_model.service_name} {model.name}"
        context[BEGAN] = self._monotonic()

    def tried(self, *, attempts: int, request_dict: dict[str, Any], **_: object) -> None:
        """After each try; those that follow are retries."""
        request_dict["context"][TRIES] = attempts

    def ends(self, *, context: dict[str, Any], parsed: dict[str, Any], **_: object) -> None:
        about = parsed.get("ResponseMetadata", {})
        code = parsed.get("Error", {}).get("Code")
        status = about.get("HTTPStatusCode", "?")
        told = f"{status} {code}" if code else str(status)
        self._tell(context, told, about.get("RequestId"))

    def fails(self, *, context: dict[str, Any], exception: Exception, **_: object) -> None:
        """No answer came at all. What the error says may hold an address that grants access."""
        self._tell(context, type(exception).__name__, None)

    def _tell(self, context: dict[str, Any], told: str, request_id: str | None) -> None:
        spent_s = self._monotonic() - context[BEGAN]
        retries = max(context.get(TRIES, 1) - 1, 0)
        log.debug(
            "%s  %s  %.3f s  %s  request %s",
            context[CALL],
            told,
            spent_s,
            "1 retry" if retries == 1 else f"{retries} retries",
            request_id or "unknown",
        )
