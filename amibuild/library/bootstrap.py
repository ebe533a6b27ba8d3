"""The user-data of a builder whose source image lacks the SSM agent.

It runs the very script that the step `ssm-agent` runs later, so both install the same package.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from amibuild.errors import PlanError
from amibuild.library.step import BuildStep

AGENT_STEP = "ssm-agent"
BOOTSTRAP = "files/bootstrap.sh"
# EC2's limit, before base64 (user guide, instance user data).
LIMIT_BYTES = 16_384


def bootstrap_user_data(steps: Sequence[BuildStep], region: str) -> bytes | None:
    """A script for cloud-init: the parameters of the agent's step, then its bootstrap.sh.

    `region` is told to the script as REGION, for download addresses that name it.
    None when no step brings an agent.
    """
    step = next((s for s in steps if s.name == AGENT_STEP), None)
    file = next((f for f in step.files if f.path == BOOTSTRAP), None) if step else None
    if step is None or file is None:
        return None
    shebang, _, body = file.content.decode().partition("\n")
    variables = {**step.environment, "REGION": region}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    text = "\n".join([shebang, *exports, body]).encode()
    if len(text) > LIMIT_BYTES:
        raise PlanError(f"user-data of {AGENT_STEP} has {len(text)} bytes; EC2 takes {LIMIT_BYTES}")
    return text
