"""What the overlay's backends share: the store, the machines, the account, and one lock.

moto makes a backend for each region when it is first asked for, and hands it nothing; so the desk
of this process is set once, by `take_over`, before the first request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from moto.core.responses import BaseResponse
from moto.ec2.exceptions import EC2ClientError

from amibuild.errors import HostError
from amibuild.local.faults import Faults
from amibuild.local.fleet import Fleet
from amibuild.local.store import Store

# moto's: every key belongs to it that no IAM user of moto's holds.
ACCOUNT = "123456789012"
CLOSE_S = 10.0


@dataclass
class Desk:
    """`lock` is held by every EC2 and SSM request, and by machines that report a change.

    `before_capture` is the scripted machines' chance to be slow, or to fail; `validation_s` is how
    long it takes until a parameter that names an image is saved.
    """

    store: Store
    fleet: Fleet
    grow: Callable[[Path, int], None]
    trim: Callable[[Path], object]
    before_capture: Callable[[], None]
    faults: Faults = field(default_factory=Faults)
    validation_s: float = 0.0
    port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    closing: threading.Event = field(default_factory=threading.Event)
    _at_work: list[threading.Thread] = field(default_factory=list)

    current: ClassVar[Desk]

    def spawn(self, work: Callable[..., None], *args: object) -> None:
        """Does what takes time beside the requests. `close` waits for it."""
        with self.lock:
            self._at_work = [thread for thread in self._at_work if thread.is_alive()]
            thread = threading.Thread(target=work, args=args, daemon=True)
            self._at_work.append(thread)
        thread.start()

    def go_on(self) -> None:
        """Raises: HostError once the endpoint ends. Long work asks this now and then."""
        if self.closing.is_set():
            raise HostError("the local endpoint ended")

    def close(self) -> None:
        """Every machine is gone by now. What is not done in time is thrown away by the store."""
        self.closing.set()
        for thread in self._at_work:
            thread.join(CLOSE_S)


class Refusal(EC2ClientError):
    """An error as EC2 words it: code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


class Locked(BaseResponse):
    """Serves one request at a time: moto's books have no locks of their own."""

    def call_action(self) -> object:
        with Desk.current.lock:
            return super().call_action()
