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

from amibuild.local.fleet import Fleet
from amibuild.local.store import Store

# moto's: every key belongs to it that no IAM user of moto's holds.
ACCOUNT = "123456789012"


@dataclass
class Desk:
    """`lock` is held by every EC2 and SSM request, and by machines that report a change.

    `before_capture` is the scripted machines' chance to be slow, or to fail; `many_disks` tells
    whether machines take data volumes (only those that do not exist do).
    """

    store: Store
    fleet: Fleet
    grow: Callable[[Path, int], None]
    before_capture: Callable[[], None]
    many_disks: bool
    port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    current: ClassVar[Desk]


class Refusal(EC2ClientError):
    """An error as EC2 words it: code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


class Locked(BaseResponse):
    """Serves one request at a time: moto's books have no locks of their own."""

    def call_action(self) -> object:
        with Desk.current.lock:
            return super().call_action()
