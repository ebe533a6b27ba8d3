"""The user-data of the machines of a bake: their lease, and the agent where the source lacks it.

The lease begins here, since who launched the machine may die before its first job. For the agent it
runs the very script that the step `ssm-agent` runs later, so both install the same package.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from importlib.resources import files

from amibuild.errors import PlanError
from amibuild.library.step import BuildStep

AGENT_STEP = "ssm-agent"
BOOTSTRAP = "files/bootstrap.sh"
SHEBANG = "#!/usr/bin/env bash\n"
# cloud-init runs what is here at the end of each boot (its documentation, scripts-per-boot). Seal
# wipes it, as all that cloud-init has.
PER_BOOT = "/var/lib/cloud/scripts/per-boot"
LEASE_SCRIPT = "amibuild-lease"
# EC2's limit, before base64 (user guide, instance user data).
LIMIT_BYTES = 16_384


def begin_lease() -> str:
    """The script that begins a machine's lease, of LEASE_S seconds."""
    return files("amibuild.library").joinpath("begin-lease.sh").read_text()


def lease_user_data(lease: timedelta) -> bytes:
    """A script for cloud-init. What fails in it is told by the first job, which tries again.

    It runs once for each instance, and a boot takes the lease away, so it leaves one for each boot.
    """
    body = begin_lease().removeprefix(SHEBANG)
    variables = _exports({"LEASE_S": str(int(lease.total_seconds()))})
    return f"""\
{SHEBANG}mkdir -p {PER_BOOT} || true
cat > {PER_BOOT}/{LEASE_SCRIPT} <<'END_OF_LEASE' || true
{SHEBANG}{variables}{body}END_OF_LEASE
chmod 755 {PER_BOOT}/{LEASE_SCRIPT} || true
{PER_BOOT}/{LEASE_SCRIPT} || true
""".encode()


def bootstrap_user_data(steps: Sequence[BuildStep], region: str, lease: timedelta) -> bytes:
    """The lease, then the parameters of the agent's step and its bootstrap.sh, where there is one.

    `region` is told to the script as REGION, for download addresses that name it.
    """
    begin = lease_user_data(lease)
    step = next((s for s in steps if s.name == AGENT_STEP), None)
    file = next((f for f in step.files if f.path == BOOTSTRAP), None) if step else None
    if step is None or file is None:
        return begin
    variables = _exports({**step.environment, "REGION": region})
    text = begin + variables.encode() + file.content.removeprefix(SHEBANG.encode())
    if len(text) > LIMIT_BYTES:
        raise PlanError(f"user-data of {AGENT_STEP} has {len(text)} bytes; EC2 takes {LIMIT_BYTES}")
    return text


def with_ssh(
    script: bytes, *, host_key: str, host_public: str, admitted: Sequence[str], root: bool
) -> bytes:
    """A user-data script, and beside it what cloud-init's ssh module reads before sshd begins: the
    machine's one host key, and who may come in as its default user, or as root.

    The host key is the one secret of any user-data, and the builder's alone: seal removes it.
    """
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key, "ed25519_public": host_public},
        "ssh_authorized_keys": list(admitted),
        **({"disable_root": False} if root else {}),
    }
    whole = MIMEMultipart(boundary="=amibuild=")
    whole.attach(MIMEText(f"#cloud-config\n{json.dumps(config)}\n", "cloud-config", "us-ascii"))
    coding = "us-ascii" if script.isascii() else "utf-8"  # the latter goes as base64
    whole.attach(MIMEText(script.decode(), "x-shellscript", coding))
    text = whole.as_bytes()
    if len(text) > LIMIT_BYTES:
        raise PlanError(f"user-data with SSH's keys has {len(text)} bytes; EC2 takes {LIMIT_BYTES}")
    return text


def _exports(variables: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
