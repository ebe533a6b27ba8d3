"""`amibuild dev`: steps run again on each save, in a machine that stays."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.completion import steps_before_seal
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    SetOption,
    TargetName,
)
from amibuild.cli.session import session
from amibuild.errors import UsageError

if TYPE_CHECKING:
    from amibuild.bench import Bench, Round
    from amibuild.cli.person import AtTerminal
    from amibuild.cli.session import Session
    from amibuild.journal import Shown
    from amibuild.project import Project


def dev(
    context: typer.Context,
    steps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STEP]...",
            help="Run these, after those that they build on; all without any.",
            autocompletion=steps_before_seal,
            show_default=False,
        ),
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    machine: MachineOption = MachineName.AUTO,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin in a new machine from the source image.")
    ] = False,
    reboot: Annotated[
        bool, typer.Option("--reboot", help="Boot the machine before the checks, each time.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Run once and end, with an exit code; the machine stays.")
    ] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run steps in a local machine that stays, and again on each save, with their checks.

    Ctrl-C ends it; `amibuild local down` ends the machine too.
    """
    with session(context, as_json=as_json) as run:
        from amibuild.bench import chosen
        from amibuild.cli.bake import refuse_scripted
        from amibuild.cli.target import open_target
        from amibuild.project import load_project
        from amibuild.recipe.environment import withheld

        if as_json and not once:
            raise UsageError("a loop has no end that one JSON object could be printed at: --once")
        refuse_scripted(machine)
        project = load_project(recipe, overrides or ())
        wanted = tuple(steps or ())
        environ = withheld(project.recipe)
        chosen(project.steps, wanted)
        with open_target(
            project.recipe, TargetName.LOCAL, machine, run.story, flow="amibuild.dev"
        ) as there:
            from amibuild import dev as flow
            from amibuild.endpoint import keep_running

            def load() -> Project:
                found = load_project(recipe, overrides or ())
                environ.update(withheld(found.recipe))
                return found

            person = _person(run)
            with flow.opened(
                project,
                there.cloud,
                wanted,
                target=there.target,
                fresh=fresh,
                subscribers=(_without_looks(run),),
                on_machine=keep_running,
                environ=environ,
            ) as bench:
                if once:
                    done = bench.run(project, wanted, again=wanted, rebooted=reboot)
                    _end_once(run, bench, done)
                    return
                prompt = "waiting for a save" + (", Enter runs it again" if person else "")
                flow.develop(
                    bench,
                    project,
                    wanted,
                    load=load,
                    tell=lambda done, took: _tell(run, done, took, prompt),
                    refused=lambda error: run.story.ask(prompt, error),
                    asked=lambda: bool(person and person.line()),
                    rebooted=reboot,
                )
                words = ["--recipe", str(recipe)] if recipe != DEFAULT_RECIPE else []
                words += [word for one in overrides or () for word in ("--set", one)]
                run.story.say(
                    f"{bench.machine} stays until its lease is over: "
                    f"`{shlex.join(['amibuild', 'dev', *words])}` goes on in it, `amibuild shell "
                    f"{bench.bake_id}` is a shell on it, `amibuild local down` ends it"
                )


def _without_looks(run: Session) -> Any:
    """All but the looks for a save is told."""

    def show(shown: Shown) -> None:
        from amibuild.saved import SAVE
        from amibuild.wait import Waiting

        if not (isinstance(shown, Waiting) and shown.what == SAVE):
            run.show(shown)

    return show


def _person(run: Session) -> AtTerminal | None:
    """Who may press Enter."""
    from amibuild.cli.person import AtTerminal

    return AtTerminal(run) if sys.stdin.isatty() and sys.stderr.isatty() else None


def _tell(run: Session, done: Round, took: str, prompt: str) -> None:
    if done.error is None:
        told = [_counted(done), took] if done.runs or done.checks else ["nothing is to be run"]
        run.story.say(", ".join(told))
    for check in done.failed:
        run.story.say(f"  {check.id}: {check.reason}")
    run.story.ask(prompt, done.error)


def _counted(done: Round) -> str:
    passed = sum(1 for check in done.checks if check.outcome == "passed")
    failed = f", {len(done.failed)} failed" if done.failed else ""
    return f"{passed} check{'' if passed == 1 else 's'} passed{failed}" if done.checks else "done"


def _end_once(run: Session, bench: Bench, done: Round) -> None:
    """Raises: what a step raised; VerifyFailed."""
    from amibuild.errors import VerifyFailed

    if done.error is not None:
        raise done.error
    if done.failed:
        count = len(done.failed)
        raise VerifyFailed(
            f"{bench.machine} failed {count} check{'s' if count > 1 else ''}",
            failures=[f"{check.id}: {check.reason}" for check in done.failed],
        )
    said = {
        "bake_id": bench.bake_id,
        "machine": bench.machine,
        "steps": [{"name": one.step.name, "seconds": one.seconds} for one in done.runs],
        "checks": [
            {"id": one.id, "outcome": one.outcome.value, "seconds": one.seconds}
            for one in done.checks
        ],
    }
    run.story.say(_counted(done))
    run.result(bench.machine, said)
