"""What `amibuild reap --json` says."""

from __future__ import annotations

from dataclasses import fields

from amibuild.cli.reap import report_json
from amibuild.reap import Elsewhere, ReapReport


def test_what_only_another_call_can_clean_is_in_the_json() -> None:
    said = report_json(ReapReport(elsewhere=[Elsewhere("20261122-1", "aws", "eu-west-1")]))
    assert said["elsewhere"] == [{"bake_id": "20261122-1", "target": "aws", "region": "eu-west-1"}]


def test_the_json_leaves_out_nothing_of_the_report() -> None:
    assert report_json(ReapReport()).keys() == {field.name for field in fields(ReapReport)}
