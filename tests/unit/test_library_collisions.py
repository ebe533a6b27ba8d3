"""Two parts of one image that want the same name, unit or port are told before a bake."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.errors import RecipeError
from amibuild.library.load import load_library
from amibuild.recipe.load import load_recipe

SERVICE = """\
purpose = "A server."
command = ["/usr/bin/server", "--port", "{port.game}"]
memory_mib = 64
[[ports]]
name = "game"
port = 4000
protocol = "udp"
"""


def told(home: Path, services: dict[str, str]) -> list[str]:
    """What is wrong with a recipe of these, by the texts of their service.toml."""
    names = ", ".join(f'"{name}"' for name in services)
    recipe = home / "amibuild.toml"
    recipe.write_text(f'[image]\nname = "host"\n[provision]\nsteps = []\nservices = [{names}]\n')
    for name, toml in services.items():
        folder = home / "provisioners/services" / name
        folder.mkdir(parents=True)
        (folder / "service.toml").write_text(toml)
        (folder / f"test_{name.replace('-', '_')}.py").write_text("def test_x(): pass\n")
    try:
        load_library(home, load_recipe(recipe))
    except RecipeError as error:
        return [str(problem).replace(f"{home}/", "") for problem in error.problems]
    return []


def port(number: int, protocol: str = "udp") -> str:
    return SERVICE.replace("4000", str(number)).replace("udp", protocol)


def test_two_services_on_one_port_are_told(tmp_path: Path) -> None:
    assert told(tmp_path, {"one": SERVICE, "two": SERVICE}) == [
        "amibuild.toml:5: provision.services[1]: two and one both listen on 4000/udp; "
        "give two a port of its own"
    ]


def test_an_instance_of_a_title_needs_a_port_of_its_own(tmp_path: Path) -> None:
    again = 'based_on = "one"\n'
    (problem,) = told(tmp_path, {"one": SERVICE, "two": again})
    assert "both listen on 4000/udp" in problem


def test_the_same_number_may_be_one_of_tcp_and_one_of_udp(tmp_path: Path) -> None:
    assert told(tmp_path, {"one": port(4000), "two": port(4000, "tcp"), "three": port(4001)}) == []


def test_a_service_named_like_the_unit_of_anothers_volume_is_told(tmp_path: Path) -> None:
    with_volume = SERVICE + "[data]\nvolume = true\n"
    assert told(tmp_path, {"foo": with_volume, "foo-data": port(4001)}) == [
        "amibuild.toml:5: provision.services[1]: foo-data and foo would both have a unit "
        "foo-data.service; give foo-data another name"
    ]


@pytest.mark.parametrize("name", ["commands", "seed", "keep-awake"])
def test_a_name_of_ours_is_told(tmp_path: Path, name: str) -> None:
    assert told(tmp_path, {name: SERVICE}) == [
        f"amibuild.toml:5: provision.services[0]: {name} is a name that amibuild itself uses; "
        "give it another name"
    ]


def test_a_name_whose_user_would_be_refused_is_told(tmp_path: Path) -> None:
    longest = "a" * 27
    assert told(tmp_path, {longest: SERVICE}) == []
    (problem,) = told(tmp_path, {f"{longest}b": SERVICE})
    assert "a user's name has at most 31 letters" in problem
