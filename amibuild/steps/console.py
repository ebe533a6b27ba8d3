"""The last words of a machine that failed, before it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.errors import AmibuildError
from amibuild.files import write_atomically
from amibuild.secret import masked


@contextmanager
def console_kept(cloud: Cloud, instance_id: str, path: Path) -> Iterator[None]:
    """Around what needs a machine: when it fails, the machine's console goes to `path`."""
    try:
        yield
    except AmibuildError as error:
        try:
            write_atomically(path, masked(cloud.ec2.console_output(instance_id)))
        except (AmibuildError, OSError) as unreadable:
            error.add_note(f"its console could not be kept: {unreadable}")
        else:
            error.add_note(f"its console: {path}")
        raise
