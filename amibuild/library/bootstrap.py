"""The user-data of a builder: an SSM agent where the source image has none, and a lease.

The first runs the very script that the step `ssm-agent` runs later, so both install the same
package.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import timedelta

from amibuild.errors import PlanError
from amibuild.library.step import BuildStep

AGENT_STEP = "ssm-agent"
BOOTSTRAP = "files/bootstrap.sh"
# EC2's limit, before base64 (user guide, instance user data).
LIMIT_BYTES = 16_384


def bootstrap_user_data(
    steps: Sequence[BuildStep], region: str, lease: timedelta | None = None
) -> bytes | None:
    """A script for cloud-init: the parameters of the agent's step, then its bootstrap.sh.

    `region` is told to the script as REGION, for download addresses that name it. `lease` is for a
    machine that boots again after its seal: its timer of then was in /run. cloud-init knows of no
    earlier boot by then, so it runs this again.
    None when no step brings an agent, and no lease is wanted.
    """
    step = next((s for s in steps if s.name == AGENT_STEP), None)
    file = next((f for f in step.files if f.path == BOOTSTRAP), None) if step else None
    begin = [_begin(lease)] if lease is not None else []
    if step is None or file is None:
        return "\n".join(["#!/usr/bin/env bash", *begin, ""]).encode() if begin else None
    shebang, _, body = file.content.decode().partition("\n")
    variables = {**step.environment, "REGION": region}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    text = "\n".join([shebang, *begin, *exports, body]).encode()
    if len(text) > LIMIT_BYTES:
        raise PlanError(f"user-data of {AGENT_STEP} has {len(text)} bytes; EC2 takes {LIMIT_BYTES}")
    return text


def _begin(lease: timedelta) -> str:
    """The timer of first-boot.sh, which finds it there and sets it back."""
    return (
        f"systemd-run --quiet --unit=amibuild-lease --on-active={int(lease.total_seconds())}"
        " --timer-property=AccuracySec=1s --timer-property=StartLimitIntervalSec=0"
        " systemctl poweroff || true"
    )
