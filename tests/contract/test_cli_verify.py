"""`amibuild verify` against an endpoint whose machines are scripted: its report, in three forms."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract import builder
from tests.contract.builder import scripted as line
from tests.contract.place import Place, new_place

MEASURED = {"exposure": 1.1}
# JUnit as pytest writes it and CI systems read it: element -> its attributes, and its children.
SHAPE = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "hostname", "tests", "failures", "errors", "skipped", "time"},
        {"testcase"},
    ),
    "testcase": (
        {"classname", "name", "time"},
        {"properties", "failure", "error", "skipped"},
    ),
    "properties": (set[str](), {"property"}),
    "property": ({"name", "value"}, set[str]()),
    "failure": ({"message"}, set[str]()),
    "error": ({"message"}, set[str]()),
    "skipped": ({"message"}, set[str]()),
}


WAIVED = {"rule": "no private key in any block", "path": "/opt/key.pem", "detail": "is a key"}


@dataclass(frozen=True)
class Proven:
    """One image, verified twice: well, and then badly."""

    place: Place
    image: str
    well: Path
    badly: Path
    said_badly: dict[str, object]
    exit_code_badly: int


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proven]:
    place = new_place(tmp_path_factory.mktemp("verified"))
    finding = {"rule": "no swap", "path": "/swapfile", "detail": "is there"}
    broken = builder.checks("failed", "E   AssertionError: the <port> is closed")
    script = [
        line("inventory", builder.INVENTORY),
        line("hygiene", builder.HYGIENE, times=1),
        line("hygiene", {**builder.HYGIENE, "waived": [WAIVED]}, times=1),
        line("hygiene", {"passed": ["no keys"], "failed": [finding]}),
        line("checks", builder.checks(measures=MEASURED), times=2),
        line("checks", broken),
        line("minetest", {"installed_bytes": 36_000_000}),
        *(line(job, None) for job in ("first-boot", "ssm-agent", "os", "seal")),
    ]
    (place.folder / "script.json").write_text(json.dumps(script))
    place.run("local", "up", "--machine", "none", "--script", "script.json")
    try:
        image = place.ask("bake")["image"]["id"]
        well, badly = place.folder / "well.xml", place.folder / "badly.xml"
        place.run("verify", image, "--junit", str(well))
        badly.write_text("the report of an earlier run")
        done = place.run("verify", image, "--junit", str(badly), "--json", check=False)
        yield Proven(place, image, well, badly, json.loads(done.stdout), done.exit_code)
    finally:
        place.run("local", "down")


@pytest.mark.parametrize("which", ["well", "badly"])
def test_its_junit_has_the_shape_that_a_ci_reads(proven: Proven, which: str) -> None:
    root = ET.parse(getattr(proven, which)).getroot()
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = SHAPE[element.tag]
        assert set(element.attrib) == attributes, element.tag
        assert {child.tag for child in element} <= children, element.tag
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases) > 0
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert re.fullmatch(r"i-[0-9a-f]{17}", suite.attrib["hostname"])
    assert int(root.attrib["tests"]) == sum(int(suite.attrib["tests"]) for suite in root)


def test_a_pass_has_its_measures_and_the_rules_of_the_finished_disk(proven: Proven) -> None:
    root = ET.parse(proven.well).getroot()
    assert (root.attrib["failures"], root.attrib["errors"]) == ("0", "0")
    assert [suite.attrib["name"] for suite in root] == ["minetest", "finished-disk"]
    (exposure,) = root.iter("property")
    assert exposure.attrib == {"name": "exposure", "value": "1.1"}
    (skipped,) = root.iter("skipped")
    assert skipped.attrib["message"] == "is a key; public by params.seal.known_public"


def test_a_failure_takes_the_place_of_the_earlier_report_and_says_why(proven: Proven) -> None:
    root = ET.parse(proven.badly).getroot()
    said = {failure.attrib["message"] for failure in root.iter("failure")}
    assert said == {"AssertionError: the <port> is closed", "is there"}
    names = {
        case.attrib["name"] for case in root.iter("testcase") if case.find("failure") is not None
    }
    assert names == {"test_it_listens_on_its_ports", "no swap: /swapfile"}


def test_a_failure_is_one_json_object_and_exit_code_3(proven: Proven) -> None:
    assert proven.exit_code_badly == 3
    assert proven.said_badly["verified"] is False
    assert proven.said_badly["image"] == proven.image


def test_the_image_is_marked_by_its_last_proof(proven: Proven) -> None:
    assert proven.place.ask("show", proven.image)["verified"] is False


def test_nothing_but_a_file_is_ever_replaced(proven: Proven) -> None:
    done = proven.place.run("verify", proven.image, "--junit", ".", check=False)
    assert (done.exit_code, b"is no file" in done.stderr) == (2, True)


def test_a_report_that_could_not_be_written_is_refused_before_anything_costs(
    proven: Proven,
) -> None:
    done = proven.place.run("verify", proven.image, "--junit", "no/x.xml", check=False)
    assert (done.exit_code, b"there is no folder no" in done.stderr) == (1, True)
    assert b"fresh boot" not in done.stderr
