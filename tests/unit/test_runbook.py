"""The runbook says what happened, leaves the user's words alone, and can't be broken by content."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amibuild.errors import PlanError
from amibuild.library.step import StepFile
from amibuild.names import Tag
from amibuild.outputs.manifest import Manifest, Seconds
from amibuild.outputs.runbook import (
    BEGIN,
    END,
    extract_commands,
    extract_steps,
    merge,
    render,
)
from tests.unit.samples import build_step, manifest, step


def test_the_file_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    history = [manifest("2026.11.21.3", image_id="ami-0fedcba9876543210", days=-1), manifest()]
    golden("RUNBOOK.md", merge(None, render(history)))


def test_a_first_runbook_has_the_markers_once() -> None:
    text = merge(None, "body")
    assert text.count(BEGIN) == text.count(END) == 1
    assert f"{BEGIN}\nbody\n{END}\n" in text


def test_the_prose_around_the_markers_is_the_users() -> None:
    mine = f"# Mine\n\nbefore\n{BEGIN}\nold\n{END}\nafter, without a newline"
    assert merge(mine, "new") == f"# Mine\n\nbefore\n{BEGIN}\nnew\n{END}\nafter, without a newline"


def test_merging_twice_changes_nothing() -> None:
    once = merge("mine\n", render([manifest()]))
    assert merge(once, render([manifest()])) == once


def test_a_file_without_markers_keeps_its_text_and_gets_them_at_the_end() -> None:
    assert merge("mine\n", "new") == f"mine\n\n{BEGIN}\nnew\n{END}\n"


@pytest.mark.parametrize(
    "broken", [f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n", f"{END}\n"]
)
def test_markers_that_are_no_pair_are_refused(broken: str) -> None:
    with pytest.raises(PlanError, match="once each"):
        merge(broken, "new")


def with_script(script: str, *files: StepFile, **environment: str) -> Manifest:
    return manifest(steps=(step(build_step("os", script, files, environment)),))


def test_a_script_that_holds_the_markers_does_not_end_the_generated_part() -> None:
    m = with_script(f"cat <<X\n{END}\n{BEGIN}\nX\n", StepFile("f", f"{END}\n".encode()), A=END)
    once = merge(None, render([m]))
    assert once.count(END) == 1
    assert merge(once, render([m])) == once
    assert len(extract_steps(once)) == 1


def test_a_script_that_holds_a_fence_does_not_close_the_block() -> None:
    m = with_script("cat <<X\n```\n```bash step=evil\nrm -rf /\n```\n````\nX\n")
    (found,) = extract_steps(render([m]))
    assert found[0] == "os"
    assert "\n````\nX\nEOF\n" in found[1]


def test_a_purpose_can_open_neither_a_block_nor_a_comment() -> None:
    built = build_step()
    evil = built.__class__(
        name="os",
        kind=built.kind,
        purpose="```bash step=evil\nrm -rf /\n```\n<!-- amibuild:end -->",
        script="true\n",
        timeout_s=1,
    )
    text = render([manifest(steps=(step(evil),))])
    assert [name for name, _ in extract_steps(text)] == ["os"]
    assert END not in text


def test_steps_come_in_their_order_and_seal_is_the_last() -> None:
    text = render([manifest()])
    assert [name for name, _ in extract_steps(text)] == ["os", "minetest", "seal"]
    assert "This is the last step" in text


def test_the_commands_stop_at_the_first_step_that_fails() -> None:
    assert extract_commands(render([manifest()])).startswith("set -e\n")


def test_commands_of_the_users_own_prose_are_not_taken() -> None:
    mine = f"```bash step=mine\nrm -rf /\n```\n{merge(None, render([manifest()]))}"
    assert "rm -rf" not in extract_commands(mine)


def test_only_verbs_that_exist_are_named() -> None:
    import re

    from amibuild.cli.main import app

    known = {command.name for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    named = set(re.findall(r"amibuild ([a-z]+)\b(?= |`)", render([manifest()])))
    assert {"verify", "show", "bake", "reap", "images"} <= named <= known


def test_the_newest_is_the_body_and_all_are_the_history() -> None:
    old = manifest("2026.11.20.1", image_id="ami-0old", days=-2)
    text = render([old, manifest()])
    assert text.startswith("## game-host-2026.11.22.1\n")
    assert text.index("| `2026.11.22.1` |") < text.index("| `2026.11.20.1` | `ami-0old` |")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.96, "1 min 00 s"), (119.9, "2 min 00 s"), (3599.6, "1 h 00 min")],
)
def test_no_part_of_a_duration_is_60(seconds: float, text: str) -> None:
    took = manifest().model_copy(update={"seconds": Seconds(total=seconds)})
    assert f"| Took | {text} |" in render([took])


def baked_on(target: str, **recipe: str) -> str:
    m = manifest()
    bake = m.bake.model_copy(update={"target": target})
    return render(
        [m.model_copy(update={"bake": bake, "recipe": m.recipe.model_copy(update=recipe)})]
    )


def test_a_local_source_is_reached_by_its_endpoint() -> None:
    local, aws = baked_on("local"), baked_on("aws")
    for said in ('eval "$(amibuild local up)"', "`amibuild local shell INSTANCE`"):
        assert said in local
        assert said not in aws
    assert "`--key-name …`" in aws


def test_a_machine_by_hand_is_as_private_as_the_bakes() -> None:
    text = baked_on("aws")
    assert "Ebs={VolumeSize=8,VolumeType=gp3,Encrypted=true}" in text
    assert "--metadata-options HttpTokens=required," in text


def test_an_image_by_hand_has_the_tags_that_verbs_go_by_and_is_waited_for() -> None:
    text = baked_on("aws")
    made, waited = text.index("aws ec2 create-image"), text.index("aws ec2 wait image-available")
    verified = text.index('amibuild verify --target aws "$image"')
    assert made < waited < verified
    for tag in (Tag.IMAGE, Tag.VERSION, Tag.DIGEST, Tag.SOURCE_AMI):
        assert f"{{Key={tag},Value=" in text[made:waited]
    assert "`amibuild_ami_id`" in text[verified:]


def test_a_recipe_of_another_name_is_named_in_each_command() -> None:
    text = baked_on("local", path="my games.toml")
    for command in (
        "amibuild verify --target local --recipe 'my games.toml' 2026.11.22.1",
        "amibuild show --target local --recipe 'my games.toml' 2026.11.22.1",
        "amibuild bake 'my games.toml' --target local --on-error keep",
        "amibuild reap 'my games.toml' --target local --dry-run",
    ):
        assert command in text
