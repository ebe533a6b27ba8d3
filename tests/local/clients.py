"""Other people's clients of the local endpoint: which are here, and one that is at work.

Each runs as a script in a folder of its own, with an empty environment but for what `amibuild
local up` prints, so that only their own defaults and that can make it work.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from amibuild import proc
from amibuild.wait import Look, until
from tests.conftest import machine_data_dir
from tests.local.scenario import amibuild, command

PREFIX = "client-test-"
DEBIAN = "resolve:ssm:/aws/service/debian/release/13/latest/amd64"
SCRIPTS = Path(__file__).parent / "client_scripts"
# Debian's own come first; ours is for the one that calls `amibuild`.
PATH = os.pathsep.join(
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", str(Path(sys.executable).parent)]
)
MIRRORS = ("/opt/tf-plugins", "/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins")
BOOT = "cat /proc/sys/kernel/random/boot_id; systemctl is-system-running --wait || true"
# They wait for 15 s between two looks at most; a busy machine makes each step slower too.
LIMIT_S = 400.0


def need(client: str, problem: str | None) -> None:
    """Where a client is missing its tests say so, and fail where it was promised to be there.

    CI installs those of Debian; AMIBUILD_TEST_CLIENTS names others that have to be there.
    """
    if problem is None:
        return
    promised = os.environ.get("AMIBUILD_TEST_CLIENTS", "").split(",")
    if os.environ.get("CI") and client in {"aws", "packer"}:
        promised.append(client)
    said = f"NOT RUN: {client}: {problem}"
    if client in promised:
        pytest.fail(said)
    pytest.skip(said)


def program(name: str) -> str | None:
    """What is wrong with it; None when it is there."""
    return None if shutil.which(name, path=PATH) else f"{name} is not installed"


def terraform_mirror() -> Path | None:
    """A folder with Terraform's AWS provider, which is not to be downloaded by a test."""
    folders = [Path(folder) for folder in MIRRORS]
    return next((f for f in folders if any(f.glob("*/hashicorp/aws/*/*"))), None)


@dataclass(frozen=True)
class Here:
    """The endpoint that runs, boto3's clients of it, and a folder for each other client."""

    environment: dict[str, str]
    folder: Path
    ec2: Any
    ssm: Any

    def launch(self, image: str = DEBIAN, **asked: Any) -> str:
        request = {"ImageId": image, "InstanceType": "c7i.large", "MinCount": 1, "MaxCount": 1}
        made = self.ec2.run_instances(**{**request, **asked})["Instances"]
        return str(made[0]["InstanceId"])

    def state(self, instance: str) -> str:
        found = self.ec2.describe_instances(InstanceIds=[instance])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def shell(self, instance: str, *words: str) -> str:
        done = amibuild(self.folder, "local", "shell", instance, "--", *words)
        assert done.exit_code == 0, done.story
        return done.stdout

    def script(self, instance: str, script: str, *, check: bool = True) -> str:
        """What it printed, run by root; nothing where it failed and `check` is off."""
        done = proc.run(
            command("local", "shell", instance),
            cwd=self.folder,
            stdin=f"{script}\n".encode(),
            check=False,
            timeout_s=1800,
        )
        assert done.exit_code == 0 or not check, done.text + done.stderr.decode()
        return done.text if done.exit_code == 0 else ""

    def rebooted(self, instance: str, *, timeout_s: float = 300) -> str:
        """Reboots it, and waits until that is over: the state that systemd says it is in then."""
        before = self.script(instance, BOOT).splitlines()[0]
        self.ec2.reboot_instances(InstanceIds=[instance])

        def look() -> Look[str]:
            boot, _, state = self.script(instance, BOOT, check=False).partition("\n")
            return Look("booting", state.strip() if boot and boot != before else None)

        return until(look, what=instance, timeout_s=timeout_s)

    def image(self, name: str) -> dict[str, Any]:
        found = self.ec2.describe_images(Filters=[{"Name": "name", "Values": [name]}])["Images"]
        (image,) = found
        return dict(image)

    def forget(self, image: dict[str, Any]) -> None:
        self.ec2.deregister_image(ImageId=image["ImageId"])
        self.ec2.delete_snapshot(SnapshotId=snapshot_of(image))

    def forget_all(self) -> None:
        """The data folder outlives the tests: their images, also those of one that was killed."""
        asked = [{"Name": "name", "Values": [f"{PREFIX}*"]}]
        for image in self.ec2.describe_images(Owners=["self"], Filters=asked)["Images"]:
            self.forget(image)


def brought_up(folder: Path, machine: str) -> Here:
    """By `amibuild local up`, as a user has it; `local down` is the caller's."""
    up = amibuild(folder, "local", "up", "--machine", machine, "--json")
    assert up.exit_code == 0, up.story
    environment = up.json["environment"]
    session = boto3.Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    ec2, ssm = (session.client(name, endpoint_url=up.json["url"]) for name in ("ec2", "ssm"))
    return Here(environment, folder, ec2, ssm)


def snapshot_of(image: dict[str, Any]) -> str:
    snapshot: str = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    return snapshot


def tags_of(resource: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}


@dataclass(frozen=True)
class Done:
    exit_code: int
    said: str


class AtWork:
    """A client's script, started when this is made. What it says goes to a file in `folder`."""

    def __init__(self, script: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._output = folder / "output"
        self._done: Done | None = None
        clean = {"HOME": str(folder), "PATH": PATH, "LANG": "C.UTF-8", **environment}
        clean["AMIBUILD_DATA_DIR"] = str(machine_data_dir())
        words = ["env", "-i", f"--chdir={folder}", *(f"{k}={v}" for k, v in clean.items())]
        with self._output.open("wb") as output:
            self._process = proc.start(
                [*words, "bash", str(SCRIPTS / script)], stdout=output, stderr=output
            )

    def done(self) -> Done:
        """Waits for its end."""
        if self._done is None:
            code = self._process.wait(LIMIT_S)
            self._done = Done(code, self._output.read_text(errors="replace"))
        return self._done

    def end(self) -> None:
        """For a test that failed: its machines go with the endpoint."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)
