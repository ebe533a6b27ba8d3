"""A service that is based on another gives only what differs."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from amibuild.library.folder import read_service
from amibuild.library.unit import unit_text

BASE = """\
purpose = "A server."
command = ["/usr/bin/server", "{port.game}"]
memory_mib = 64
[environment]
A = "1"
B = "2"
[[ports]]
name = "game"
port = 7777
protocol = "udp"
"""


def folders(tmp_path: Path, **texts: str) -> dict[str, Path]:
    """A folder for each service.toml."""
    found = {}
    for name, text in texts.items():
        found[name] = tmp_path / name
        (found[name] / "files").mkdir(parents=True)
        (found[name] / "service.toml").write_text(text)
    return found


def based(tmp_path: Path, name: str = "second", **texts: str) -> list[str]:
    """The mistakes in a service that is based on others."""
    found = folders(tmp_path, **texts)
    return [str(p).replace(f"{tmp_path}/", "") for p in read_service(found[name], found).problems]


def test_a_second_instance_gives_only_what_differs(tmp_path: Path) -> None:
    second = """\
    based_on = "first"
    memory_mib = 128
    [environment]
    B = "3"
    [[ports]]
    name = "game"
    port = 7778
    protocol = "udp"
    """
    found = folders(tmp_path, first=BASE, second=dedent(second))
    (found["first"] / "files/a.conf").write_text("first")
    (found["first"] / "files/b.conf").write_text("first")
    (found["second"] / "files/b.conf").write_text("second")
    (found["first"] / "test_first.py").write_text("def test_it() -> None: ...")
    read = read_service(found["second"], found)
    assert read.problems == ()
    assert read.value is not None
    assert read.value.name == "second"
    assert read.value.file.memory_mib == 128
    assert read.value.file.environment == {"A": "1", "B": "3"}
    assert [port.port for port in read.value.file.ports] == [7778]
    assert {f.path: f.content for f in read.value.configuration} == {
        "a.conf": b"first",
        "b.conf": b"second",
    }
    assert [check.path for check in read.value.checks] == ["test_first.py"]
    assert "ExecStart=/usr/bin/server 7778" in unit_text(read.value)


def test_a_mistake_is_told_in_the_file_that_it_is_in(tmp_path: Path) -> None:
    wrong = BASE.replace("64", "1")
    second = 'based_on = "first"\ncpu_percent = 0\n'
    assert based(tmp_path, first=wrong, second=second) == [
        "first/service.toml:3: memory_mib: must be at least 16",
        "second/service.toml:2: cpu_percent: must be at least 1",
    ]


def test_a_list_that_is_replaced_is_not_filled_up_from_below(tmp_path: Path) -> None:
    second = 'based_on = "first"\n[[ports]]\nname = "game"\nprotocol = "udp"\n'
    assert based(tmp_path, first=BASE, second=second) == [
        "second/service.toml:2: ports[0].port: is missing: Its number"
    ]


def test_a_circle_and_an_unknown_base_are_told(tmp_path: Path) -> None:
    assert based(
        tmp_path / "a", first='based_on = "second"\n' + BASE, second='based_on = "first"'
    ) == ["first/service.toml:1: based_on: goes round in a circle: second -> first -> second"]
    assert based(tmp_path / "b", first=BASE, second='based_on = "firs"\n' + BASE) == [
        "second/service.toml:1: based_on: there is no service firs; did you mean first?"
    ]
