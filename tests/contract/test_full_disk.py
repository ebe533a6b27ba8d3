"""A disk that fills up under the endpoint: each call that can't be kept says so, the rest works."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from amibuild.local import private
from tests.namespaces import needs_namespaces

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, os, sys
from pathlib import Path
import boto3
from botocore.exceptions import ClientError
from tests.contract.conftest import Aws, KEY, REGION
from amibuild.local.service import Options, Service

full = Path(sys.argv[1])
session = boto3.Session(KEY.id, KEY.secret, region_name=REGION)

def opened():
    return Aws(Service(Options(full, machine="none", key=KEY)), session)

aws = opened()
instance = aws.stopped()
with aws.machine(instance).spec.disk.open("r+b") as disk:
    disk.write(os.urandom(1 << 20))
aws.ssm.put_parameter(Name="/before", Value="kept", Type="String")
ballast = full / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
said = {}
try:
    aws.ssm.put_parameter(Name="/during", Value="x" * 4000, Type="String")
except ClientError as error:
    said["parameter"] = error.response["Error"]["Message"]
image = aws.ec2.create_image(InstanceId=instance, Name="during")["ImageId"]
aws.until(lambda: aws.image_state(image), "failed")
said["image"] = aws.ec2.describe_images(ImageIds=[image])["Images"][0]["StateReason"]["Message"]
aws.ec2.deregister_image(ImageId=image)
said["read"] = aws.ssm.get_parameter(Name="/before")["Parameter"]["Value"]
ballast.unlink()
aws.ssm.put_parameter(Name="/after", Value="kept too", Type="String")
image = aws.ec2.create_image(InstanceId=instance, Name="after")["ImageId"]
aws.until(lambda: aws.image_state(image), "available")
aws.service.close()
aws = opened()
names = aws.ssm.describe_parameters()["Parameters"]
said["names"] = sorted(p["Name"] for p in names if p["Name"] in {"/before", "/during", "/after"})
said["damaged"] = aws.service._status()["store"]["damaged"]
assert aws.running(ImageId=image)
aws.service.close()
print(json.dumps(said))
"""


@needs_namespaces
def test_a_full_disk_is_said_by_each_call_and_ends_with_it(tmp_path: Path) -> None:
    """On a disk of 8 MB in memory, in a mount namespace of its own."""
    full = tmp_path / "full"
    full.mkdir()
    mount = 'mount -t tmpfs -o size=8m none "$1"; shift; exec "$@"'
    words: list[str | Path] = ["sh", "-euc", mount, "sh", full, sys.executable, "-c", SCRIPT, full]
    said = json.loads(private.run(words, env={"PYTHONPATH": str(ROOT)}).stdout)
    for what in ("parameter", "image"):
        assert f"no space is left for the local target on the disk of {full}" in said[what]
    assert said["read"] == "kept"
    assert said["names"] == ["/after", "/before"]
    assert said["damaged"] == []
