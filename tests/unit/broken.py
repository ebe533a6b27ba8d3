"""Broken projects for `amibuild plan`: one of each kind is made of each file in tests/broken.

What no small TOML file can hold, such as links, folders in a file's place and odd bytes, is made by
a function here that is called as its case.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "broken"

IMAGE = '[image]\nname = "game-host"\n'
SERVICE = """\
purpose = "A game."
packages = ["game-server"]
command = ["/usr/games/server"]
memory_mib = 256
[[ports]]
name = "game"
port = 7777
protocol = "udp"
"""
PROVISIONER = 'purpose = "Says hello."\n'
RUN = "#!/usr/bin/env bash\nset -euo pipefail\necho hello\n"
CHECK = "def test_x(host): assert host.file('/').exists\n"

Make = Callable[[Path], None]


def recipe(home: Path, text: str | bytes = IMAGE) -> Path:
    path = home / "amibuild.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def service(home: Path, toml: str = SERVICE, name: str = "game") -> Path:
    folder = home / "provisioners/services" / name
    folder.mkdir(parents=True)
    (folder / "service.toml").write_text(toml)
    return folder


def provisioner(home: Path, toml: str = PROVISIONER, name: str = "greet") -> Path:
    folder = home / "provisioners" / name
    folder.mkdir(parents=True)
    (folder / "provisioner.toml").write_text(toml)
    (folder / "run.sh").write_text(RUN)
    (folder / f"test_{name.replace('-', '_')}.py").write_text(CHECK)
    return folder


def uses(home: Path, *, steps: str = '"os"', services: str = "") -> Path:
    return recipe(home, f"{IMAGE}[provision]\nsteps = [{steps}]\nservices = [{services}]\n")


def _of_file(path: Path) -> Make:
    """A project that is wrong in that one file."""

    def make(home: Path) -> None:
        match path.parent.name:
            case "recipes":
                recipe(home, path.read_bytes())
            case "services":
                uses(home, services='"game"')
                service(home, path.read_text())
            case "provisioners":
                uses(home, steps='"os", "greet"')
                provisioner(home, path.read_text())

    return make


def cases(kind: str) -> dict[str, Make]:
    """All broken projects of a kind, by what is wrong with them."""
    files = {path.stem: _of_file(path) for path in sorted((CORPUS / kind).glob("*.toml"))}
    made = {
        name.removeprefix(f"{kind}_").replace("_", "-"): function
        for name, function in globals().items()
        if name.startswith(f"{kind}_")
    }
    assert not files.keys() & made.keys()
    return dict(sorted({**files, **made}.items()))


def recipes_is_missing(home: Path) -> None:
    """There is nothing but the folder."""


def recipes_is_a_folder(home: Path) -> None:
    (home / "amibuild.toml").mkdir()


def recipes_is_a_link_to_nothing(home: Path) -> None:
    (home / "amibuild.toml").symlink_to("elsewhere.toml")


def recipes_is_a_link_to_itself(home: Path) -> None:
    (home / "amibuild.toml").symlink_to("amibuild.toml")


def recipes_is_a_program(home: Path) -> None:
    recipe(home, b"\x7fELF\x02\x01\x01" + bytes(64))


def recipes_without_an_end(home: Path) -> None:
    (home / "amibuild.toml").symlink_to("/dev/zero")


def recipes_in_utf_16(home: Path) -> None:
    recipe(home, IMAGE.encode("utf-16"))


def recipes_in_latin_1(home: Path) -> None:
    recipe(home, '[image]\nname = "game-host"\ndescription = "Spiele für alle"\n'.encode("latin-1"))


def recipes_wrong_behind_a_byte_order_mark(home: Path) -> None:
    recipe(home, b"\xef\xbb\xbf[image]\nname = 7\n")


def recipes_wrong_with_line_ends_of_windows(home: Path) -> None:
    recipe(home, b"[image]\r\nname = 7\r\n[builder]\r\nvolume_gib = 12 GiB\r\n")


def recipes_with_a_carriage_return_alone(home: Path) -> None:
    recipe(home, b'[image]\rname = "game-host"\r')


def recipes_with_a_zero_byte(home: Path) -> None:
    recipe(home, b'[image]\nname = "game\0host"\n')


def recipes_wrong_behind_wide_letters(home: Path) -> None:
    recipe(home, '[image]\nname = "game-host"\ndescription = "ゲームサーバー" today\n')


def recipes_with_a_very_long_line(home: Path) -> None:
    types = ", ".join(f'"c{n}i.large"' for n in range(1, 60))
    recipe(home, f'{IMAGE}[builder]\ninstance_types = [{types}, "big", "c7a.large"]\n')


def recipes_with_lists_of_tables_too_deep(home: Path) -> None:
    recipe(home, IMAGE + "".join(f"[[{'.'.join('a' * depth)}]]\n" for depth in range(1, 40)))


def recipes_with_a_key_of_too_many_parts(home: Path) -> None:
    recipe(home, f"{IMAGE}{'a.' * 20000}a = 1\n")


def recipes_with_a_header_of_too_many_parts(home: Path) -> None:
    recipe(home, f"{IMAGE}[{'a.' * 20000}a]\n")


def recipes_with_a_value_as_long_as_a_file(home: Path) -> None:
    recipe(home, f'[image]\nname = "{"Game" * 200_000}"\n')


def services_file_is_missing(home: Path) -> None:
    uses(home, services='"game"')
    (service(home) / "service.toml").unlink()


def services_file_is_a_folder(home: Path) -> None:
    uses(home, services='"game"')
    folder = service(home)
    (folder / "service.toml").unlink()
    (folder / "service.toml").mkdir()


def services_folder_is_a_file(home: Path) -> None:
    uses(home, services='"game"')
    (home / "provisioners/services").mkdir(parents=True)
    (home / "provisioners/services/game").write_text(SERVICE)


def services_with_a_script(home: Path) -> None:
    uses(home, services='"game"')
    (service(home) / "run.sh").write_text(RUN)


def services_with_a_name_too_long_for_a_user(home: Path) -> None:
    uses(home, services=f'"{"g" * 30}"')
    service(home, name="g" * 30)


def services_called_as_a_part_of_amibuild(home: Path) -> None:
    uses(home, services='"checks"')
    service(home, name="checks")


def services_with_a_link_out_of_the_folder(home: Path) -> None:
    uses(home, services='"game"')
    files = service(home) / "files"
    files.mkdir()
    (files / "server.conf").symlink_to("../../../../../etc/passwd")


def services_with_a_pipe_among_files(home: Path) -> None:
    uses(home, services='"game"')
    files = service(home) / "files"
    files.mkdir()
    os.mkfifo(files / "server.conf")


def services_with_a_file_for_files(home: Path) -> None:
    uses(home, services='"game"')
    (service(home) / "files").write_text("port = 7777\n")


def services_with_a_check_that_is_no_python(home: Path) -> None:
    uses(home, services='"game"')
    (service(home) / "test_game.py").write_text("def test_x(host):\n    assert host.(\n")


def services_two_on_one_port(home: Path) -> None:
    uses(home, services='"game", "other"')
    service(home)
    service(home, name="other")


def services_two_with_one_unit(home: Path) -> None:
    uses(home, services='"game", "game-data"')
    service(home, SERVICE + "[data]\nvolume = true\n")
    service(home, SERVICE.replace("7777", "7778") + "[data]\nvolume = true\n", name="game-data")


def services_based_on_each_other(home: Path) -> None:
    uses(home, services='"game"')
    service(home, 'based_on = "other"\n' + SERVICE)
    service(home, 'based_on = "game"\n' + SERVICE, name="other")


def services_based_on_a_broken_one(home: Path) -> None:
    uses(home, services='"game"')
    service(home, 'based_on = "other"\npurpose = "The same, with another purpose."\n')
    service(home, SERVICE.replace("256", "1"), name="other")


def provisioners_pattern_nested_too_deep(home: Path) -> None:
    uses(home, steps='"greet"')
    parameter = 'type = "string"\ndescription = "Who is greeted."\nexpected = "a word"\n'
    pattern = f'pattern = "{"(" * 3000}a{")" * 3000}"\n'
    provisioner(home, f"{PROVISIONER}[parameters.who]\n{parameter}{pattern}")


def provisioners_file_is_missing(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "provisioner.toml").unlink()


def provisioners_folder_is_empty(home: Path) -> None:
    uses(home, steps='"greet"')
    (home / "provisioners/greet").mkdir(parents=True)


def provisioners_need_each_other(home: Path) -> None:
    uses(home, steps='"greet", "part"')
    provisioner(home, f'{PROVISIONER}after = ["part"]\n')
    provisioner(home, f'{PROVISIONER}after = ["greet"]\n', name="part")


def provisioners_need_each_other_over_a_third(home: Path) -> None:
    uses(home, steps='"greet", "part", "stay"')
    provisioner(home, f'{PROVISIONER}after = ["part"]\n')
    provisioner(home, f'{PROVISIONER}after = ["stay"]\n', name="part")
    provisioner(home, f'{PROVISIONER}after = ["greet"]\n', name="stay")


def provisioners_before_what_they_need(home: Path) -> None:
    uses(home, steps='"greet", "os"')
    provisioner(home, f'{PROVISIONER}after = ["os"]\n')


def provisioners_without_what_they_need(home: Path) -> None:
    uses(home, steps='"greet"')
    provisioner(home, f'{PROVISIONER}after = ["os"]\n')


def provisioners_script_with_an_if_that_has_no_end(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text(f"{RUN}if true; then\n    echo hello\n")


def provisioners_script_with_a_word_too_many(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text(f"{RUN}for x in a b; echo $x; done\n")


def provisioners_script_is_missing(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").unlink()


def provisioners_script_is_empty(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text("")


def provisioners_script_is_a_folder(home: Path) -> None:
    uses(home, steps='"greet"')
    script = provisioner(home) / "run.sh"
    script.unlink()
    script.mkdir()


def provisioners_script_is_a_pipe(home: Path) -> None:
    uses(home, steps='"greet"')
    script = provisioner(home) / "run.sh"
    script.unlink()
    os.mkfifo(script)


def provisioners_script_for_sh(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text("#!/bin/sh\necho hello\n")


def provisioners_script_of_python(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text("#!/usr/bin/env python3\nprint('hello')\n")


def provisioners_script_with_line_ends_of_windows(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text(RUN.replace("\n", "\r\n"))


def provisioners_script_with_a_byte_order_mark(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_text("\ufeff" + RUN)


def provisioners_script_that_is_no_text(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "run.sh").write_bytes(RUN.encode() + b"echo \xff\xfe\n")


def provisioners_check_is_missing(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "test_greet.py").unlink()


def provisioners_check_that_is_no_python(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "test_greet.py").write_text("import pytest\n\ndef test_x(:\n    pass\n")


def provisioners_check_with_a_zero_byte(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "test_greet.py").write_bytes(b"import os\n\0\n")


def provisioners_with_a_link_among_files(home: Path) -> None:
    uses(home, steps='"greet"')
    files = provisioner(home) / "files"
    files.mkdir()
    (files / "up").symlink_to("..")


def provisioners_with_what_must_not_travel(home: Path) -> None:
    uses(home, steps='"greet"')
    files = provisioner(home) / "files"
    files.mkdir()
    (files / "to-nothing").symlink_to("nothing")
    (files / "round").symlink_to("round")
    (files / "absolute").symlink_to("/etc/hostname")
    (files / "out-and-in").symlink_to("../files/plain")
    (files / "plain").touch()
    os.mkfifo(files / "pipe")
    (files / os.fsdecode(b"not-utf-8-\xff")).touch()


def provisioners_with_a_linked_folder_of_files(home: Path) -> None:
    uses(home, steps='"greet"')
    (provisioner(home) / "files").symlink_to("/etc")


def provisioners_name_with_capitals(home: Path) -> None:
    uses(home, steps='"Greet"')
    provisioner(home, name="Greet")
