"""A folder with a recipe and an endpoint of its own, and the command line in it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from amibuild import proc

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

RECIPE = '[image]\nname = "game-host"\n[provision]\nsteps = ["os"]\nservices = ["minetest"]\n'


@dataclass(frozen=True)
class Place:
    """A folder with a recipe, and a data folder of its own: each has its own endpoint."""

    folder: Path

    def run(self, *arguments: str, check: bool = True, stdin: bytes | None = None) -> proc.Finished:
        words = [sys.executable, "-m", "amibuild.cli.main", *arguments]
        env = {"AMIBUILD_DATA_DIR": str(self.folder / "data")}
        return proc.run(words, cwd=self.folder, check=check, env=env, stdin=stdin)

    def ask(self, *arguments: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.run(*arguments, "--json").stdout)
        return loaded

    def ec2(self) -> EC2Client:
        """A client of the endpoint that runs."""
        up = self.ask("local", "up")
        client: EC2Client = boto3.client(
            "ec2",
            endpoint_url=up["url"],
            region_name=up["environment"]["AWS_DEFAULT_REGION"],
            aws_access_key_id=up["environment"]["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=up["environment"]["AWS_SECRET_ACCESS_KEY"],
        )
        return client

    def launch(self, **tags: str) -> str:
        base = "resolve:ssm:/aws/service/debian/release/13/latest/amd64"
        asked: dict[str, Any] = {}
        if tags:
            pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
            asked["TagSpecifications"] = [{"ResourceType": "instance", "Tags": pairs}]
        started = self.ec2().run_instances(ImageId=base, MinCount=1, MaxCount=1, **asked)
        return started["Instances"][0]["InstanceId"]


def new_place(folder: Path) -> Place:
    (folder / "amibuild.toml").write_text(RECIPE)
    return Place(folder)
