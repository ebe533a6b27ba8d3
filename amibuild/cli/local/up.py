"""`amibuild local up`: the endpoint for other clients, as slow and as faulty as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amibuild.cli.options import JsonOption, MachineName, MachineOption
from amibuild.cli.session import session


def up(
    context: typer.Context,
    machine: MachineOption = MachineName.AUTO,
    port: Annotated[
        int, typer.Option(help="On 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    latency: Annotated[
        str,
        typer.Option(
            metavar="WHAT=SECONDS,…",
            help="With --machine none: how long run, ready, stop, image, terminate and parameter "
            "take.",
            show_default=False,
        ),
    ] = "",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CALL:N=CODE",
            help="Fail the Nth such call, as in CreateImage:2=RequestLimitExceeded; N+ for all "
            "from there on, * for all; :after behind it for one that is carried out and fails "
            "then; visible:instance=N for N reads that do not show a new one. With --machine none "
            "also boot, agent, capture and spot. README.md has them all. Repeatable.",
            show_default=False,
        ),
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --machine none: what commands answer, a JSON list of "
            '{"match", "exit_code", "stdout", "stderr", "seconds", "times", …}.',
            show_default=False,
        ),
    ] = None,
    call_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Log every call, one JSON object a line.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the endpoint and leave it running; prints what an EC2 client needs.

    eval "$(amibuild local up)" is all that boto3, Terraform and an AWS CLI from 2.13 on need; an
    older one wants --endpoint-url $AWS_ENDPOINT_URL too, and Packer custom_endpoint_ec2.
    """
    with session(context, as_json=as_json) as run:
        from amibuild.endpoint import start_detached
        from amibuild.local.settings import Settings, told

        settings = Settings(
            machine=machine.value,
            port=port,
            latency=latency,
            faults=tuple(fault or ()),
            script=script.absolute() if script else None,
            call_log=call_log.absolute() if call_log else None,
        )
        endpoint = start_detached(settings=settings, progress=run.story.say)
        if not endpoint.owned:
            run.story.say(f"it runs already, with {told(endpoint.settings)}")
        # Any region works; this one is what the starter recipe names.
        environment = {
            "AWS_ENDPOINT_URL": endpoint.url,
            "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        run.result(
            "\n".join(f"export {name}={value}" for name, value in environment.items()),
            {
                "url": endpoint.url,
                "pid": endpoint.pid,
                "machine": endpoint.machine,
                "environment": environment,
            },
        )
