"""A service with all that one can have, installed and started on an nspawn machine.

Its secrets come from the local target's SSM and Secrets Manager, with the role that the machine's
metadata gives it; the checks are those that run on every image.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from amibuild import proc
from amibuild.library.compile import compile_service
from amibuild.library.service import Service, ServiceFile
from amibuild.library.step import BuildStep, StepFile
from amibuild.verify.bundle import build_bundle
from amibuild.wait import Look, until
from tests.local.host import left_on_host
from tests.local.scenario import amibuild, command
from tests.local.steps import installing

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

# Answers with its secrets, writes down what it hears, and ends when it is told to.
SERVER = """\
import os, socket, sys, threading
port, token, key, state = sys.argv[1:]
secrets = open(token).read() + " " + open(key).read()
os.makedirs(state + "/logs", exist_ok=True)
open(state + "/logs/server.log", "a").write("started\\n")

def serve():
    listener = socket.create_server(("0.0.0.0", int(port)))
    while True:
        client, _ = listener.accept()
        client.sendall(secrets.encode())
        client.close()

threading.Thread(target=serve, daemon=True).start()
for line in sys.stdin:
    open(state + "/heard", "a").write(line)
    if line == "/exit now\\n":
        break
"""
FIELDS: dict[str, Any] = {
    "purpose": "A server with all that one can have",
    "command": (
        *("/usr/bin/python3", "{config}/server.py", "{port.game}"),
        *("{secret.token}", "{secret.key}", "{state}"),
    ),
    "first_start": ("/bin/sh", "-c", "cat >{state}/was-set"),
    "memory_mib": 64,
    "cpu_percent": 50,
    "stop_input": "/exit now",
    "stop_timeout_s": 20,
    "data": {"volume": True},
    "logs": {"files": ("{state}/logs/*.log",)},
    "ports": ({"name": "game", "port": 4000, "protocol": "tcp"},),
    "secrets": (
        {"name": "token"},
        {"name": "key", "id": "prod/game", "from": "secretsmanager"},
    ),
}
CONFIGURATION = (StepFile("server.py", SERVER.encode()),)


@dataclass(frozen=True)
class Machine:
    folder: Path
    ec2: Any
    id: str

    def run(self, script: str, *, check: bool = True) -> str:
        done = proc.run(
            command("local", "shell", self.id),
            cwd=self.folder,
            stdin=f"set -e\n{script}\n".encode(),
            check=False,
            timeout_s=300,
        )
        assert done.exit_code == 0 or not check, done.text + done.stderr.decode()
        return done.text.strip()


@pytest.fixture(scope="module")
def step() -> BuildStep:
    return compile_service(
        Service("probe", ServiceFile.model_validate(FIELDS), CONFIGURATION), "host"
    )


@pytest.fixture(scope="module")
def machine(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory, step: BuildStep
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("service")
    up = amibuild(folder, "local", "up", "--machine", "nspawn", "--json")
    assert up.exit_code == 0, up.story
    try:
        environment = up.json["environment"]
        machine = Machine(folder, *launch(environment))
        until(lambda: Look("booting", ready(machine)), what="the machine", timeout_s=120)
        machine.run(installing(step))
        # Which a bake leaves to the next boot.
        machine.run("systemctl start probe")
        yield machine
    finally:
        amibuild(folder, "local", "down", "--force")
    assert left_on_host() == {}


def launch(environment: dict[str, str]) -> tuple[Any, str]:
    """An instance of the base image whose role may read, as the endpoint lets every role."""

    session: Any = boto3.Session(
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )

    def client(service: str) -> Any:
        return session.client(service, endpoint_url=environment["AWS_ENDPOINT_URL"])

    ssm, iam = client("ssm"), client("iam")
    ssm.put_parameter(Name="/host/probe/token", Value="s3cret", Type="SecureString", Overwrite=True)
    client("secretsmanager").create_secret(Name="prod/game", SecretString='k"e\\y')
    iam.create_role(RoleName="game", AssumeRolePolicyDocument='{"Statement": []}')
    iam.create_instance_profile(InstanceProfileName="game")
    iam.add_role_to_instance_profile(InstanceProfileName="game", RoleName="game")
    image = ssm.get_parameter(Name="/aws/service/debian/release/13/latest/amd64")
    port = environment["AWS_ENDPOINT_URL"].rpartition(":")[2]
    written = {"path": "/etc/amibuild/endpoint", "content": f"http://127.0.0.1:{port}/"}
    ec2 = client("ec2")
    launched = ec2.run_instances(
        ImageId=image["Parameter"]["Value"],
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.micro",
        IamInstanceProfile={"Name": "game"},
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        UserData="#cloud-config\n" + json.dumps({"write_files": [written]}),
    )
    return ec2, str(launched["Instances"][0]["InstanceId"])


def ready(machine: Machine) -> bool | None:
    return machine.run("systemctl is-system-running --wait || true", check=False) != "" or None


def brought(content: bytes, path: str) -> str:
    """A command that writes a file on the machine."""
    return f"base64 -d >{path} <<'EOF'\n{base64.encodebytes(content).decode()}EOF"


def answered(machine: Machine) -> str:
    asked = "import socket; print(socket.create_connection(('127.0.0.1', 4000)).recv(99).decode())"
    return machine.run(
        f"for _ in $(seq 60); do ss -Hltn 'sport = :4000' | grep -q . && break; sleep 0.5; done\n"
        f'python3 -c "{asked}"'
    )


def test_its_secrets_reach_it_as_credentials(machine: Machine) -> None:
    assert answered(machine) == 's3cret k"e\\y'


def test_no_secret_is_in_the_log_or_in_its_unit(machine: Machine) -> None:
    said = machine.run(
        "journalctl --no-pager -o cat -u probe -u probe-secrets; systemctl show probe"
    )
    assert "/host/probe/token is there as token" in said
    assert "s3cret" not in said


def test_its_first_password_was_set_once_before_it_started(machine: Machine) -> None:
    state = "/var/lib/svc-probe"
    kept, given = machine.run(f"cat {state}/first-password {state}/was-set").split()
    assert kept == given
    machine.run("systemctl restart probe")
    assert machine.run(f"cat {state}/first-password") == kept


def test_a_line_on_its_stdin_ends_it_and_none_is_left_for_the_next_start(machine: Machine) -> None:
    """A server that hangs reads nothing; what was meant for it is not for the one after it."""
    answered(machine)
    heard = "/var/lib/svc-probe/heard"
    machine.run(f"rm -f {heard}; systemctl stop probe")
    assert machine.run(f"cat {heard}") == "/exit now"
    machine.run("systemctl start probe")
    answered(machine)
    machine.run(
        "pid=$(systemctl show --property=MainPID --value probe)\n"
        "kill -STOP $pid; printf 'late\\n/exit now\\n' >/run/svc-probe/stdin; kill -KILL $pid\n"
        "for _ in $(seq 60); do\n"
        "    now=$(systemctl show --property=MainPID --value probe)\n"
        "    [ $now = 0 ] || [ $now = $pid ] || break; sleep 0.5\n"
        "done"
    )
    answered(machine)
    assert machine.run(f"cat {heard}") == "/exit now"


def test_without_a_volume_its_state_stays_on_the_root_disk(machine: Machine) -> None:
    said = machine.run("journalctl --no-pager -o cat -u probe-data")
    assert "no volume is named for probe" in said


def test_every_services_checks_pass(machine: Machine, step: BuildStep) -> None:
    result = machine.run(
        f"{brought(build_bundle([step]), '/root/c.pyz')}\n"
        "python3 -I -S /root/c.pyz --json /root/result >/dev/null || true; cat /root/result"
    )
    checks = json.loads(result)["checks"]
    assert [(c["id"], c["message"]) for c in checks if c["outcome"] != "passed"] == []
    assert len(checks) >= 15


# Runs on the machine, beside the check that it takes its functions from.
WITHOUT = """\
import importlib.util
from pathlib import Path

place = Path(__file__).with_name("test_sandbox.py")
spec = importlib.util.spec_from_file_location("sandbox_check", place)
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


def test_each_attack_gets_through_without_what_is_said_to_refuse_it(host, facts):
    whole, order = check.copy_of(host, facts), check.order_of(host, facts, [facts])
    not_here = {*check.NOT_IN_A_CONTAINER, *check.allowed(host, facts)}
    still = {}
    for name, one in check.attacked(host, "probe-with", whole, order).items():
        taken = {*one["by"].split(", "), *(["Group"] if "User" in one["by"] else [])}
        lines = [line for line in whole if line.partition("=")[0] not in taken]
        found = check.attacked(host, "probe-without", lines, order)[name]["how"]
        if found and "through" not in found.values() and name not in not_here:
            still[name] = found
    assert still == {}
"""


def test_what_is_said_to_refuse_an_attack_does(machine: Machine, step: BuildStep) -> None:
    beside = [c for c in step.checks if c.path.startswith(("attack/", "test_sandbox"))]
    checks = (StepFile("test_without.py", WITHOUT.encode()), *beside)
    bundle = build_bundle([replace(step, checks=checks)])
    result = machine.run(
        f"{brought(bundle, '/root/w.pyz')}\n"
        "python3 -I -S /root/w.pyz --json /root/result >/dev/null || true; cat /root/result"
    )
    ended = {c["id"].rpartition("::")[2]: c["message"] for c in json.loads(result)["checks"]}
    assert set(ended.values()) == {""}
    assert "test_each_attack_gets_through_without_what_is_said_to_refuse_it" in ended


def test_the_volume_that_the_machines_tag_names_is_mounted_at_its_state(machine: Machine) -> None:
    """Last, for it hides what the service wrote before."""
    ec2 = machine.ec2
    (found,) = ec2.describe_instances(InstanceIds=[machine.id])["Reservations"]
    zone = found["Instances"][0]["Placement"]["AvailabilityZone"]
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume])
    ec2.attach_volume(VolumeId=volume, InstanceId=machine.id, Device="/dev/sdf")
    tag = {"Key": "amibuild:volume:probe", "Value": volume}
    ec2.create_tags(Resources=[machine.id], Tags=[tag])
    machine.run("systemctl stop probe; systemctl restart probe-data; systemctl start probe")
    answered(machine)
    mounted = machine.run("findmnt --noheadings --output TARGET,FSTYPE /var/lib/svc-probe")
    assert mounted.split() == ["/var/lib/svc-probe", "ext4"]
    owner = machine.run("stat -c '%U %a' /var/lib/svc-probe /var/lib/svc-probe/first-password")
    assert owner.splitlines() == ["svc-probe 750", "svc-probe 600"]
