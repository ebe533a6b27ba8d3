"""What a bake has signed its calls with is looked for on the disk, keys that it had before too."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from amibuild.aws.session import Cloud
from amibuild.names import EndpointAccess
from amibuild.verify.known import KNOWN_FILE
from tests.contract import builder
from tests.contract.builder import Answers, new_project
from tests.contract.conftest import Start

if TYPE_CHECKING:
    from amibuild.local.machines.script import Outcome

HYGIENE = re.compile(
    r"base64 -d <<'AMIBUILD' .*/run/amibuild/hygiene/job-[0-9a-f]+/work\n(.*?)AMIBUILD\n", re.S
)


class Rotating(Cloud):
    """Signs with other keys each time it is asked for them, as a role does after an hour."""

    asked = 0

    def secrets(self) -> dict[str, str]:
        self.asked += 1
        return {f"key {self.asked}": f"secret-access-key-{self.asked}"}


def test_keys_from_before_the_launch_are_looked_for_after_they_have_rotated(
    start: Start, tmp_path: Path
) -> None:
    answers = Answers()
    asked_at: list[int] = []
    payloads: list[bytes] = []

    def hear(script: str) -> Outcome:
        asked_at.append(cloud.asked)
        payloads.extend(base64.b64decode(text) for text in HYGIENE.findall(script))
        return answers(script)

    aws = start(script=hear)
    key = aws.service.options.key
    access = EndpointAccess(aws.service.url, key.id, key.secret)
    cloud = Rotating(region=aws.region, access=access)
    builder.run(new_project(tmp_path / "project"), cloud)
    assert (asked_at[0], asked_at[-1]) == (1, 2)
    (payload,) = payloads
    with tarfile.open(fileobj=io.BytesIO(payload)) as tar:
        (file,) = [tar.extractfile(one) for one in tar if one.name == KNOWN_FILE]
        assert file is not None
        known = json.load(file)
    assert [value["name"] for value in known["values"]] == ["key 1", "key 2"]
