"""What a step brought as files of its own is there, and only root may change it.

`facts["install"]` is the folder; `facts["steam"]` what steamcmd was asked for, or None.
"""

import re
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]


def test_its_files_are_there_and_roots_alone(host: Host, facts: Facts) -> None:
    folder = facts["install"]
    assert host.check_output("find %s -mindepth 1 -print -quit", folder) != ""
    others = "find %s '(' '!' -uid 0 -o '!' -gid 0 -o '!' -type l -perm /6022 ')' -print -quit"
    assert host.check_output(others, folder) == ""


def test_nothing_half_unpacked_is_left(host: Host, facts: Facts) -> None:
    above, _, name = facts["install"].rpartition("/")
    assert not host.file(f"{above}/.{name}.new").exists


def test_steam_says_that_it_is_fully_installed(
    host: Host, facts: Facts, record_property: Callable[[str, object], None]
) -> None:
    steam = facts.get("steam")
    if steam is None:
        return
    path = f"{facts['install']}/steamapps/appmanifest_{steam['app']}.acf"
    found = dict(re.findall(r'"(StateFlags|buildid)"\s+"(\d+)"', host.file(path).content_string))
    record_property("buildid", found.get("buildid"))
    assert found.get("StateFlags") == "4"
