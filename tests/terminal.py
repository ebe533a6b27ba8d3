"""The near end of a pseudo-terminal, as a person at it sees what is printed."""

from __future__ import annotations

import os


def read_to_end(near: int) -> bytes:
    """All that is printed until the far end is closed; closes the near one."""
    said = b""
    try:
        while chunk := os.read(near, 4096):
            said += chunk
    except OSError:  # Linux' way to say that the other end of a terminal is closed
        pass
    os.close(near)
    return said
