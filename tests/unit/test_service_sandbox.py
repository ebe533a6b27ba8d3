"""What is tried from inside of a service's sandbox, and what is said of what came of it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import testinfra

from amibuild.library.compile import service_facts
from amibuild.library.every_service.attack.attempts import ATTACKS
from amibuild.library.every_service.attack.means import LOADERS, NUMBERS
from amibuild.library.every_service.test_sandbox import (
    DECOYS,
    METADATA,
    RUN,
    allowed,
    got_through,
    told,
)
from tests.unit.services import service

READ = "read another's state, configuration and secrets"


def came(**how: str) -> dict[str, Any]:
    return {
        "by": "NoExecPaths",
        "how": {name.replace("_", " "): text for name, text in how.items()},
    }


def open_to(**fields: Any) -> dict[str, str]:
    """On a machine where nothing is asked for it."""
    return allowed(testinfra.get_host("local://"), service_facts(service(**fields)))


def test_every_architecture_has_its_loader() -> None:
    assert LOADERS.keys() == NUMBERS.keys()
    assert Path(LOADERS[platform.machine()]).exists()


def test_where_it_is_the_only_service_there_is_still_something_to_read(tmp_path: Path) -> None:
    folder, file = (tmp_path / decoy.name for decoy in DECOYS)
    folder.mkdir()
    file.write_text("for its owner alone")
    others: dict[str, list[str]] = {
        kind: [] for kind in ("state", "config", "secrets", "credentials")
    }
    attempts = dict(ATTACKS[READ][1]({}, {**others, "decoy": [str(folder), str(file)]}))
    assert list(attempts) == [str(folder), str(file)]
    for attempt in attempts.values():
        attempt()


def test_one_whose_program_lies_in_its_state_runs_it_from_there_and_nowhere_else() -> None:
    open_here = open_to(runs_from_state=True, uses_role=True)
    one = came(its_state="through", memory="EPERM")
    assert got_through(RUN, one, open_here) == []
    assert told(RUN, one, {}, open_here) == (
        "open: its program lies in its state directory, elsewhere NoExecPaths (EPERM)"
    )
    one = came(its_state="through", memory="through", elsewhere="through")
    assert got_through(RUN, one, open_here) == ["elsewhere", "memory"]
    assert got_through(RUN, one, {}) == ["elsewhere", "its state", "memory"]


def test_one_that_uses_the_role_may_reach_the_metadata_address() -> None:
    open_here = open_to(uses_role=True)
    assert open_here == {METADATA: "open: uses_role"}
    one = came(address="through")
    assert got_through(METADATA, one, open_here) == []
    assert told(METADATA, one, {}, open_here) == "open: uses_role"


def test_the_kernel_is_the_reason_only_where_it_refuses_root_as_well() -> None:
    assert told("load", came(a="EPERM", b="EACCES"), {}, {}) == "NoExecPaths (EACCES, EPERM)"
    assert told("load", came(a="EPERM"), {"a": "EPERM"}, {}).startswith("not shown here")
    assert told("load", came(), {}, {}) == "nothing to try here"
    assert told("load", came(a="through"), {}, {}) == "through"
