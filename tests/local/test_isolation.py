"""Eight services of one image on a real machine: none can see or harm another, and a volume's state
outlives the image.

The servers are as bad as they are told to be, from inside of their sandboxes. Takes two bakes on
nspawn and two machines: four to six minutes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from amibuild import proc
from amibuild.wait import Look, until
from tests.local.host import left_on_host
from tests.local.scenario import Called, amibuild, command, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

NAMES = tuple(f"probe-{number}" for number in range(1, 9))
# The one with a data volume, which the others have not.
FIRST, *OTHERS = NAMES
PORTS = {name: 7100 + number for number, name in enumerate(NAMES, 1)}
RECIPE = """\
[image]
name = "isolation"
[provision]
steps = ["nearby"]
services = {services}
[provision.params.nearby]
url = "{url}"
[aws]
instance_profile = "isolation"
"""
# Where secrets are on the local target; on EC2 a machine knows by itself.
NEARBY = {
    "provisioner.toml": 'purpose = "Says where the local target answers."\n'
    '[parameters.url]\ntype = "string"\ndescription = "Its address."\ndefault = ""\n',
    "run.sh": "#!/usr/bin/env bash\nset -euo pipefail\n"
    'mkdir -p /etc/amibuild\necho "$PARAM_URL" >/etc/amibuild/endpoint\n',
    "test_nearby.py": "def test_it(host):\n    assert host.file('/etc/amibuild/endpoint').size\n",
}
SERVER = """\
import os, socket, sys
port, state, token = sys.argv[1:]
starts = 1 + len(open(state + "/starts").readlines()) if os.path.exists(state + "/starts") else 1
open(state + "/starts", "a").write("start\\n")

def fill(path):
    with open(path, "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()

def answer(words):
    match words:
        case ["say"]:
            return open(token).read() + " " + str(starts)
        case ["read", path]:
            return open(path).read()
        case ["list", path]:
            return " ".join(os.listdir(path))
        case ["write", path, *text]:
            open(path, "w").write(" ".join(text))
            return "written"
        case ["fill", path]:
            fill(path)

listener = socket.create_server(("0.0.0.0", int(port)))
while True:
    client, _ = listener.accept()
    with client:
        words = client.makefile().readline().split()
        try:
            client.sendall(str(answer(words)).encode())
        except OSError as error:
            client.sendall(type(error).__name__.encode() + b" " + str(error.errno).encode())
        except Exception as error:
            client.sendall(type(error).__name__.encode())
"""
PROBE = """\
purpose = "A server that does what it is told"
command = ["/usr/bin/python3", "{config}/server.py", "{port.game}", "{state}", "{secret.token}"]
memory_mib = 64
[data]
volume = true
size_gib = 1
[[secrets]]
name = "token"
[[ports]]
name = "game"
port = 7101
protocol = "tcp"
"""
# Another instance: its keys win, all else is the first one's.
ANOTHER = """\
based_on = "probe-1"
[data]
volume = false
[[ports]]
name = "game"
port = {port}
protocol = "tcp"
"""
# No permission; not there for it; a file system that it can't write to.
REFUSED = ("PermissionError 13", "FileNotFoundError 2", "OSError 30")


@dataclass(frozen=True)
class Place:
    folder: Path
    ec2: Any


@dataclass(frozen=True)
class Host:
    """A machine of the image."""

    place: Place
    id: str

    def run(self, script: str) -> str:
        done = proc.run(
            command("local", "shell", self.id),
            cwd=self.place.folder,
            stdin=f"set -e\n{script}\n".encode(),
            check=False,
            timeout_s=300,
        )
        assert done.exit_code == 0, done.text + done.stderr.decode()
        return done.text.strip()

    def tell(self, name: str, *words: str) -> str:
        """What a server says to this line."""
        (said,) = self.tell_all((name, " ".join(words)))
        return said.strip()

    def tell_all(self, *lines: tuple[str, str]) -> list[str]:
        """What the named servers say to these lines, one after the other, in one visit."""
        asked = json.dumps([(PORTS[name], line + "\n") for name, line in lines])
        program = (
            "import json, socket\n"
            "said = []\n"
            f"for port, line in json.loads({asked!r}):\n"
            "    client = socket.create_connection(('127.0.0.1', port), timeout=120)\n"
            "    client.sendall(line.encode())\n"
            "    said.append(client.makefile().read())\n"
            "print(json.dumps(said))\n"
        )
        said: list[str] = json.loads(self.run(f"python3 - <<'EOF'\n{program}EOF"))
        return said

    def await_servers(self) -> None:
        """Until all are heard; a volume may still be on its way."""
        ports = " ".join(str(port) for port in PORTS.values())
        self.run(
            f"for port in {ports}; do for _ in $(seq 200); do\n"
            '    [ -z "$(ss -Hltn "sport = :$port")" ] || continue 2; sleep 0.5\n'
            "done; systemctl --failed; exit 1; done"
        )

    def lives(self, names: list[str]) -> dict[str, str]:
        """Of each its process and restarts: the same as long as nothing has happened to it."""
        units = " ".join(names)
        shown = self.run(f"systemctl show --property=MainPID,NRestarts,ActiveState {units}")
        return dict(zip(names, shown.split("\n\n"), strict=True))


@pytest.fixture(scope="module")
def place(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = new_project(tmp_path_factory.mktemp("isolation") / "project", recipe="")
    up = amibuild(folder, "local", "up", "--machine", "nspawn", "--json")
    assert up.exit_code == 0, up.story
    try:
        environment = up.json["environment"]
        session: Any = boto3.Session(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )
        ssm, iam, ec2 = (
            session.client(name, endpoint_url=up.json["url"]) for name in ("ssm", "iam", "ec2")
        )
        iam.create_role(RoleName="isolation", AssumeRolePolicyDocument='{"Statement": []}')
        # The local target has none of Amazon's own policies.
        allowed = {"Effect": "Allow", "Action": ["ssm:*", "ssmmessages:*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_role_policy(RoleName="isolation", PolicyName="all", PolicyDocument=policy)
        iam.create_instance_profile(InstanceProfileName="isolation")
        iam.add_role_to_instance_profile(InstanceProfileName="isolation", RoleName="isolation")
        for name in NAMES:
            ssm.put_parameter(
                Name=f"/isolation/{name}/token",
                Value=f"secret-of-{name}",
                Type="SecureString",
                Overwrite=True,
            )
        write_recipe(folder, up.json["url"])
        yield Place(folder, ec2)
    finally:
        amibuild(folder, "local", "down", "--force")
    assert left_on_host() == {}


def write_recipe(folder: Path, url: str) -> None:
    at = f"http://127.0.0.1:{url.rpartition(':')[2].strip('/')}/"
    recipe = RECIPE.format(services=json.dumps(NAMES), url=at)
    (folder / "amibuild.toml").write_text(recipe)
    nearby = folder / "provisioners/nearby"
    nearby.mkdir(parents=True)
    for name, text in NEARBY.items():
        (nearby / name).write_text(text)
    for name in NAMES:
        service = folder / "provisioners/services" / name
        service.mkdir(parents=True)
        text = PROBE if name == FIRST else ANOTHER.format(port=PORTS[name])
        (service / "service.toml").write_text(text)
    files = folder / "provisioners/services" / FIRST / "files"
    files.mkdir()
    (files / "server.py").write_text(SERVER)


def baked(place: Place) -> str:
    done: Called = amibuild(place.folder, "bake", "--json")
    assert done.exit_code == 0, done.story
    return str(done.json["image"]["id"])


@pytest.fixture(scope="module")
def image(place: Place) -> str:
    return baked(place)


@pytest.fixture(scope="module")
def volume(place: Place) -> str:
    zone = place.ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    made = place.ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    place.ec2.get_waiter("volume_available").wait(VolumeIds=[made])
    return str(made)


def launched(place: Place, image: str, volume: str) -> Host:
    """With the volume at FIRST's state; ready when all servers are heard."""
    (found,) = place.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    tag = {"Key": f"amibuild:volume:{FIRST}", "Value": volume}
    (instance,) = place.ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.micro",
        Placement={"AvailabilityZone": found["AvailabilityZone"]},
        IamInstanceProfile={"Name": "isolation"},
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [tag]}],
    )["Instances"]
    id_ = instance["InstanceId"]
    place.ec2.get_waiter("instance_running").wait(InstanceIds=[id_])
    place.ec2.attach_volume(VolumeId=volume, InstanceId=id_, Device="/dev/sdf")
    host = Host(place, id_)
    host.await_servers()
    return host


def terminated(host: Host) -> None:
    host.place.ec2.terminate_instances(InstanceIds=[host.id])
    host.place.ec2.get_waiter("instance_terminated").wait(InstanceIds=[host.id])


@pytest.fixture(scope="module")
def host(place: Place, image: str, volume: str) -> Host:
    return launched(place, image, volume)


def test_each_runs_as_its_own_user(host: Host) -> None:
    users = host.run(
        f"for name in {' '.join(NAMES)}; do\n"
        "    stat -c %U /proc/$(systemctl show --property=MainPID --value $name)\n"
        "done"
    )
    assert users.split() == [f"svc-{name}" for name in NAMES]


def test_each_gets_its_own_secret(host: Host) -> None:
    assert secrets_of(host, NAMES) == [f"secret-of-{name}" for name in NAMES]


def secrets_of(host: Host, names: Iterable[str]) -> list[str]:
    return [said.split()[0] for said in host.tell_all(*((name, "say") for name in names))]


@pytest.mark.parametrize("reader", [FIRST, OTHERS[0], OTHERS[-1]])
def test_none_can_read_anothers_state_configuration_or_secrets(host: Host, reader: str) -> None:
    assert host.tell(reader, "read", f"/etc/svc-{reader}/server.py").startswith("import")
    assert host.tell(reader, "read", f"/var/lib/svc-{reader}/starts").startswith("start")
    lines = [
        line
        for name in NAMES
        if name != reader
        for line in (
            f"read /var/lib/svc-{name}/starts",
            f"read /etc/svc-{name}/server.py",
            f"read /run/credentials/{name}.service/token",
            f"read /run/amibuild/secrets/{name}/token",
            f"write /var/lib/svc-{name}/mine x",
        )
    ]
    said = host.tell_all(*((reader, line) for line in lines))
    got = {line: one for line, one in zip(lines, said, strict=True) if one not in REFUSED}
    assert got == {}


def test_one_sees_no_process_of_another(host: Host) -> None:
    own = set(host.run("pgrep --uid svc-probe-2").split())
    seen = {word for word in host.tell("probe-2", "list", "/proc").split() if word.isdecimal()}
    assert seen <= own


def test_stopping_one_harms_no_other(host: Host) -> None:
    rest = [name for name in NAMES if name != "probe-3"]
    before = host.lives(rest)
    host.run("systemctl stop probe-3")
    assert secrets_of(host, rest) == [f"secret-of-{name}" for name in rest]
    assert host.lives(rest) == before
    host.run("systemctl start probe-3")


def test_a_crash_of_one_harms_no_other_and_it_comes_back(host: Host) -> None:
    rest = [name for name in NAMES if name != "probe-4"]
    before, starts = host.lives(rest), int(host.tell("probe-4", "say").split()[1])
    host.run("kill -KILL $(systemctl show --property=MainPID --value probe-4)")
    assert host.lives(rest) == before
    host.run(
        "for _ in $(seq 60); do ss -Hltn 'sport = :7104' | grep -q . && break; sleep 0.5; done"
    )
    assert host.tell("probe-4", "say") == f"secret-of-probe-4 {starts + 1}"


def test_a_full_volume_is_full_for_its_service_alone(host: Host) -> None:
    """The volume is the quota: what is on it can't fill the root disk, where the others write."""
    before = host.lives(OTHERS)
    free = int(host.run("df --output=avail --block-size=1M / | tail -n 1"))
    state = f"/var/lib/svc-{FIRST}"
    assert host.tell(FIRST, "fill", f"{state}/rubbish") == "OSError 28"
    assert int(host.run("df --output=avail --block-size=1M / | tail -n 1")) > free - 64
    saves = [(name, f"write /var/lib/svc-{name}/save a game") for name in OTHERS]
    assert host.tell_all(*saves) == ["written"] * len(OTHERS)
    assert host.lives(OTHERS) == before
    host.run(f"rm {state}/rubbish")


def test_state_on_the_volume_outlives_the_image(host: Host, volume: str) -> None:
    """Last: it ends the machine."""
    place = host.place
    assert host.tell(FIRST, "write", f"/var/lib/svc-{FIRST}/world", "hills", "and", "sea")
    identity = host.run(f"findmnt --noheadings --output UUID /var/lib/svc-{FIRST}")
    starts = int(host.tell(FIRST, "say").split()[1])
    old = place.ec2.describe_instances(InstanceIds=[host.id])["Reservations"][0]["Instances"][0]
    terminated(host)
    until(lambda: Look("in use", _free(place, volume)), what="the volume to be free", timeout_s=60)
    service = place.folder / "provisioners/services/probe-2/service.toml"
    service.write_text("memory_mib = 80\n" + service.read_text())
    rebaked = baked(place)
    assert rebaked != old["ImageId"]
    newer = launched(place, rebaked, volume)
    try:
        assert newer.tell(FIRST, "read", f"/var/lib/svc-{FIRST}/world") == "hills and sea"
        assert newer.tell(FIRST, "say") == f"secret-of-{FIRST} {starts + 1}"
        said = newer.run(f"journalctl --no-pager --output=cat --unit {FIRST}-data")
        assert f"{volume} is mounted" in said
        assert "formatting" not in said
        found = newer.run(f"findmnt --noheadings --output UUID /var/lib/svc-{FIRST}")
        assert found == identity
        limit = newer.run("systemctl show --property=MemoryMax --value probe-2")
        assert limit == str(80 * 2**20)
    finally:
        terminated(newer)


def _free(place: Place, volume: str) -> bool | None:
    (found,) = place.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    return found["State"] == "available" or None
