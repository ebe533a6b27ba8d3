"""The last words of a machine that failed or was given up, before it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.errors import AmibuildError, Interrupted
from amibuild.files import write_atomically
from amibuild.secret import masked


@contextmanager
def console_kept(cloud: Cloud, instance_id: str, path: Path) -> Iterator[None]:
    """Around what needs a machine: when it fails, the machine's console goes to `path`.

    An interrupt too: it is what one does to a machine that seems to hang. The clean-up waits for
    this, so it is one try of seconds.
    """
    try:
        yield
    except (AmibuildError, Interrupted) as error:
        try:
            write_atomically(path, masked(cloud.ec2_at_once.console_output(instance_id)))
        except (AmibuildError, OSError) as unreadable:
            error.add_note(f"its console could not be kept: {unreadable}")
        else:
            error.add_note(f"its console: {path}")
        raise
