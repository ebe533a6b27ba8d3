"""Ten instances at once: each is itself, has an address of its own, and goes without a trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amibuild.endpoint import open_endpoint
from benchmarks.instances import ask, launch, memory_mib, terminate
from tests.local.host import left_on_host

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]
COUNT = 10
# Ten machines of nspawn took 450 MiB together.
MEMORY_MIB = 1500
WHO = """\
imds=http://169.254.169.254/latest
token=$(curl -sfX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $imds/api/token)
curl -sf -H "X-aws-ec2-metadata-token: $token" $imds/meta-data/instance-id
echo
ip -4 -o address show dev ami0 | awk '{ sub("/.*", "", $4); print $4 }'
"""


def test_ten_instances_at_once_each_answer_for_themselves(data_dir: Path) -> None:
    with open_endpoint(machine="nspawn") as endpoint:
        ids = launch(endpoint, COUNT)
        answers = ask(endpoint, ids, WHO)
        memory = memory_mib()
        terminate(endpoint, ids)
    assert len({answer.address for answer in answers}) == COUNT
    assert [answer.said.split() for answer in answers] == [
        [a.instance_id, a.address] for a in answers
    ]
    assert 0 < memory < MEMORY_MIB
    assert left_on_host() == {}
