"""Run Command: who gets a command, what becomes of it, and what is kept of its output.

Source, where a test names none: SSM API reference (botocore's model) of the operation.
"""

from __future__ import annotations

from typing import Any

import pytest

from amibuild.local.machines.script import Outcome
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start

DOCUMENT = "AWS-RunShellScript"


def send(aws: Aws, instance: str, *lines: str, **asked: Any) -> str:
    parameters = {"commands": list(lines or ["true"]), **asked.pop("parameters", {})}
    sent = aws.ssm.send_command(
        InstanceIds=[instance], DocumentName=DOCUMENT, Parameters=parameters, **asked
    )
    return sent["Command"]["CommandId"]


def invocation(aws: Aws, command: str, instance: str) -> dict[str, Any]:
    return dict(aws.ssm.get_command_invocation(CommandId=command, InstanceId=instance))


def ended(aws: Aws, command: str, instance: str) -> dict[str, Any]:
    """The invocation, once it is in none of the states that it leaves again."""

    def see() -> str:
        status = invocation(aws, command, instance)["Status"]
        return "open" if status in {"Pending", "InProgress", "Cancelling"} else "ended"

    aws.until(see, "ended")
    return invocation(aws, command, instance)


@answers(
    "DescribeInstanceInformation",
    "the agent has not answered yet",
    "the machine is not listed",
    source="SSM API reference, DescribeInstanceInformation",
)
def test_a_machine_registers_when_its_agent_answers(start: Start) -> None:
    """DescribeInstanceInformation lists managed machines only."""
    aws = start(latency="ready=3")  # in 0.5 s a busy host had it registered before the look
    instance = aws.launch()
    aws.until_state(instance, "running")
    assert aws.ping(instance) == "not registered"
    aws.until(lambda: aws.ping(instance), "Online")


@answers(
    "DescribeInstanceInformation",
    "the machine is stopped",
    "PingStatus ConnectionLost",
    source="SSM API reference, InstanceInformation: PingStatus",
)
def test_a_stopped_machine_has_lost_its_connection(aws: Aws) -> None:
    """PingStatus: Online, ConnectionLost."""
    assert aws.ping(aws.stopped()) == "ConnectionLost"


def test_a_terminated_machine_is_not_listed(aws: Aws) -> None:
    instance = aws.running()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    assert aws.ping(instance) == "not registered"


@answers(
    "SendCommand",
    "the agent never registered",
    "InvalidInstanceId",
    source="SSM API reference, SendCommand",
)
def test_a_machine_whose_agent_never_answers_gets_no_command(
    start: Start, refuses: Refuses
) -> None:
    """SendCommand: InvalidInstanceId."""
    aws = start("agent:1=never")
    instance = aws.launch()
    aws.until_state(instance, "running")
    refuses("InvalidInstanceId", send, aws=aws, instance=instance)


@answers(
    "SendCommand",
    "the instance does not exist",
    "InvalidInstanceId",
    source="SSM API reference, SendCommand",
)
def test_an_unknown_machine_gets_no_command(aws: Aws, refuses: Refuses) -> None:
    refuses("InvalidInstanceId", send, aws=aws, instance="i-0123456789abcdef0")


@answers(
    "SendCommand",
    "the document does not exist",
    "InvalidDocument",
    source="SSM API reference, SendCommand",
)
def test_an_unknown_document_is_refused(aws: Aws, refuses: Refuses) -> None:
    """SendCommand: InvalidDocument."""
    asked = {"InstanceIds": [aws.running()], "DocumentName": "AWS-Nothing"}
    refuses("InvalidDocument", aws.ssm.send_command, **asked)


@answers(
    "SendCommand",
    "a parameter that the document lacks",
    "InvalidParameters",
    source="SSM API reference, SendCommand",
)
def test_a_parameter_that_the_document_lacks_is_refused(aws: Aws, refuses: Refuses) -> None:
    """SendCommand: InvalidParameters, "only … parameters defined in the SSM document"."""
    refuses(
        "InvalidParameters",
        send,
        aws=aws,
        instance=aws.running(),
        parameters={"shell": ["bash"]},
    )


@answers(
    "SendCommand",
    "document and parameters are over 64 KB",
    "MaxDocumentSizeExceeded",
    source="SSM API reference, SendCommand",
)
def test_64_kb_with_parameters_is_the_limit(aws: Aws, refuses: Refuses) -> None:
    """MaxDocumentSizeExceeded: "The size limit of a document is 64 KB", parameters included."""
    instance = aws.running()
    assert ended(aws, send(aws, instance, "#" * 60_000), instance)["Status"] == "Success"
    with pytest.raises(aws.ssm.exceptions.MaxDocumentSizeExceeded):
        send(aws, instance, "#" * 65_536)


@answers(
    "SendCommand",
    "InstanceIds are named",
    "these machines get the command, no others",
    source="SSM API reference, SendCommand: InstanceIds",
)
def test_only_the_named_machine_gets_the_command(start: Start) -> None:
    heard: list[str] = []

    def script(text: str) -> Outcome:
        heard.append(text)
        return Outcome()

    aws = start(script=script)
    first, second = aws.running(), aws.running()
    command = send(aws, first, "echo one", "echo two")
    ended(aws, command, first)
    assert heard == ["#!/bin/sh\necho one\necho two\n"]
    with pytest.raises(aws.ssm.exceptions.InvocationDoesNotExist):
        invocation(aws, command, second)


def test_targets_name_machines_by_tag(aws: Aws) -> None:
    """SendCommand, Targets."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "builder"}]}]
    tagged, _ = aws.running(TagSpecifications=tags), aws.running()
    command = aws.ssm.send_command(
        Targets=[{"Key": "tag:role", "Values": ["builder"]}],
        DocumentName=DOCUMENT,
        Parameters={"commands": ["true"]},
    )["Command"]["CommandId"]
    listed = aws.ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
    assert [i["InstanceId"] for i in listed] == [tagged]


@answers(
    "GetCommandInvocation",
    "the script failed",
    "Failed, its exit code, its output and a line of the agent on stderr",
    source="amazon-ssm-agent, agent/plugins/runscript",
)
def test_output_and_exit_code_are_the_scripts(start: Start) -> None:
    """ResponseCode; a failed script's stderr ends with the agent's own line (amazon-ssm-agent)."""
    aws = start(script=lambda _: Outcome(3, "out\n", "err\n"))
    instance = aws.running()
    done = ended(aws, send(aws, instance), instance)
    assert (done["Status"], done["StatusDetails"], done["ResponseCode"]) == ("Failed", "Failed", 3)
    assert done["StandardOutputContent"] == "out\n"
    assert done["StandardErrorContent"] == "err\nfailed to run commands: exit status 3"
    assert done["PluginName"] == "aws:runShellScript"


@answers(
    "GetCommandInvocation",
    "the command runs",
    "InProgress, ResponseCode -1, no output",
    source="SSM API reference, GetCommandInvocation",
)
def test_a_running_command_has_no_output_and_no_exit_code(start: Start) -> None:
    """ResponseCode -1 until it ended; StandardOutputContent is empty until then."""
    aws = start(script=lambda _: Outcome(0, "late", seconds=0.6))
    instance = aws.running()
    command = send(aws, instance)
    aws.until(lambda: invocation(aws, command, instance)["Status"], "InProgress")
    now = invocation(aws, command, instance)
    assert (now["ResponseCode"], now["StandardOutputContent"]) == (-1, "")
    assert ended(aws, command, instance)["StandardOutputContent"] == "late"


@answers(
    "GetCommandInvocation",
    "long output",
    "the first 24,000 characters of stdout and 8,000 of stderr",
    source="SSM API reference, GetCommandInvocation: StandardOutputContent",
)
def test_24000_and_8000_characters_are_kept(start: Start) -> None:
    """GetCommandInvocation: "The first 24,000 characters", "The first 8,000 characters"."""
    aws = start(script=lambda _: Outcome(0, "o" * 30_000, "e" * 30_000))
    instance = aws.running()
    done = ended(aws, send(aws, instance), instance)
    assert done["StandardOutputContent"] == "o" * 24_000
    assert done["StandardErrorContent"] == "e" * 8_000


@answers(
    "ListCommandInvocations",
    "long output",
    "the first 2,500 characters",
    source="SSM API reference, CommandPlugin: Output",
)
def test_2500_characters_are_listed(start: Start) -> None:
    """CommandPlugin, Output: "the first 2500 characters", with the agent's own mark."""
    aws = start(script=lambda _: Outcome(0, "o" * 3000))
    instance = aws.running()
    command = send(aws, instance)
    ended(aws, command, instance)
    (listed,) = aws.ssm.list_command_invocations(CommandId=command, Details=True)[
        "CommandInvocations"
    ]
    output = listed["CommandPlugins"][0]["Output"]
    assert len(output) == 2500
    assert output.endswith("\n---Output truncated---")


@answers(
    "GetCommandInvocation",
    "executionTimeout has passed",
    "TimedOut, ExecutionTimedOut, exit code 137",
    source="amazon-ssm-agent, agent/appconfig/constants_unix.go",
)
def test_a_script_past_its_time_is_ended(start: Start) -> None:
    """executionTimeout; StatusDetails ExecutionTimedOut, exit code 137 (amazon-ssm-agent)."""
    aws = start(script=lambda _: Outcome(0, "begun\n", seconds=600))
    instance = aws.running()
    # The shortest that SSM takes is 5 s.
    command = send(aws, instance, parameters={"executionTimeout": ["5"]})
    done = ended(aws, command, instance)
    assert (done["Status"], done["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")
    assert done["ResponseCode"] == 137


@answers(
    "CancelCommand",
    "the command runs",
    "Cancelled, exit code 137",
    source="amazon-ssm-agent, agent/appconfig/constants_unix.go",
)
def test_a_cancelled_command_ends(start: Start) -> None:
    """CancelCommand; the agent's exit code for it is 137."""
    aws = start(script=lambda _: Outcome(seconds=600))
    instance = aws.running()
    command = send(aws, instance)
    aws.until(lambda: invocation(aws, command, instance)["Status"], "InProgress")
    aws.ssm.cancel_command(CommandId=command)
    done = ended(aws, command, instance)
    assert (done["Status"], done["ResponseCode"]) == ("Cancelled", 137)
    (listed,) = aws.ssm.list_commands(CommandId=command)["Commands"]
    assert listed["Status"] == "Cancelled"


@answers(
    "CancelCommand",
    "the command has ended",
    "success, its status stays",
    source="SSM API reference, CancelCommand",
)
def test_an_ended_command_cannot_be_cancelled_any_longer(aws: Aws) -> None:
    instance = aws.running()
    command = send(aws, instance)
    ended(aws, command, instance)
    aws.ssm.cancel_command(CommandId=command, InstanceIds=[instance])
    assert invocation(aws, command, instance)["Status"] == "Success"


@answers(
    "CancelCommand, GetCommandInvocation",
    "the command does not exist",
    "InvalidCommandId",
    source="SSM API reference, CancelCommand",
)
def test_an_unknown_command_is_told(aws: Aws, refuses: Refuses) -> None:
    """InvalidCommandId."""
    unknown = "01234567-0123-0123-0123-0123456789ab"
    refuses("InvalidCommandId", aws.ssm.cancel_command, CommandId=unknown)
    refuses(
        "InvalidCommandId",
        aws.ssm.get_command_invocation,
        CommandId=unknown,
        InstanceId="i-0123456789abcdef0",
    )


@answers(
    "SendCommand",
    "the machine is registered and off",
    "Pending until TimeoutSeconds, delivered when it is back",
    source="SSM API reference, SendCommand: TimeoutSeconds",
)
def test_a_command_for_a_machine_that_is_off_waits_for_it(aws: Aws) -> None:
    """SendCommand takes stopped machines; TimeoutSeconds is how long delivery may take."""
    instance = aws.stopped()
    command = send(aws, instance, TimeoutSeconds=30)
    assert invocation(aws, command, instance)["Status"] == "Pending"
    aws.ec2.start_instances(InstanceIds=[instance])
    assert ended(aws, command, instance)["Status"] == "Success"


@answers(
    "SendCommand",
    "the script ends with 194",
    "the machine reboots, and the script runs again",
    source="SSM user guide, Handling reboots when running commands",
)
def test_exit_194_reboots_and_runs_the_script_again(start: Start) -> None:
    """SSM user guide, "Handling reboots when running commands"."""
    codes = iter([194, 0])
    aws = start(script=lambda _: Outcome(next(codes), "turn\n"))
    instance = aws.running()
    before = aws.machine(instance)
    done = ended(aws, send(aws, instance), instance)
    assert (done["Status"], done["StandardOutputContent"]) == ("Success", "turn\nturn\n")
    assert before.exited()
    assert aws.machine(instance) is not before


def test_a_machine_that_goes_off_fails_its_command(start: Start) -> None:
    aws = start(script=lambda _: Outcome(seconds=600))
    instance = aws.running()
    command = send(aws, instance)
    aws.until(lambda: invocation(aws, command, instance)["Status"], "InProgress")
    aws.machine(instance).power_off()
    done = ended(aws, command, instance)
    assert (done["Status"], done["StatusDetails"]) == ("Failed", "Undeliverable")


def test_a_working_directory_is_entered(start: Start) -> None:
    """AWS-RunShellScript, workingDirectory."""
    heard: list[str] = []

    def script(text: str) -> Outcome:
        heard.append(text)
        return Outcome()

    aws = start(script=script)
    instance = aws.running()
    ended(aws, send(aws, instance, parameters={"workingDirectory": ["/srv/a b"]}), instance)
    assert heard == ["#!/bin/sh\ncd '/srv/a b' || exit 1\ntrue\n"]


@answers(
    "ListCommands",
    "several commands",
    "newest first, with counts of targets",
    source="SSM API reference, ListCommands",
)
def test_commands_are_listed_newest_first(aws: Aws) -> None:
    instance = aws.running()
    sent = [send(aws, instance, Comment=str(n)) for n in range(3)]
    for command in sent:
        ended(aws, command, instance)
    listed = aws.ssm.list_commands()["Commands"]
    assert [c["CommandId"] for c in listed] == sent[::-1]
    assert {(c["TargetCount"], c["CompletedCount"], c["ErrorCount"]) for c in listed} == {(1, 1, 0)}


@answers(
    "GetServiceSetting",
    "Default Host Management is on",
    "the role's name",
    source="SSM API reference, GetServiceSetting",
)
def test_default_host_management_is_on(aws: Aws) -> None:
    """GetServiceSetting: `$None` while it is off, else the role's name."""
    setting = aws.ssm.get_service_setting(
        SettingId="/ssm/managed-instance/default-ec2-instance-management-role"
    )["ServiceSetting"]
    assert setting["SettingValue"].startswith("service-role/")


@answers(
    "GetServiceSetting",
    "another setting",
    "ServiceSettingNotFound",
    source="SSM API reference, GetServiceSetting",
)
def test_other_settings_are_not_known(aws: Aws, refuses: Refuses) -> None:
    refuses(
        "ServiceSettingNotFound",
        aws.ssm.get_service_setting,
        SettingId="/ssm/opsinsights/opscenter",
    )


@pytest.mark.parametrize("seconds", ["0", "172801", "soon"])
@answers(
    "SendCommand",
    "executionTimeout outside 1 to 172,800, or no number",
    "InvalidParameters",
    source="the document AWS-RunShellScript, allowedPattern, in boto/boto3 #2558",
)
def test_the_document_knows_what_a_timeout_is(aws: Aws, refuses: Refuses, seconds: str) -> None:
    refuses(
        "InvalidParameters",
        aws.ssm.send_command,
        InstanceIds=[aws.running()],
        DocumentName=DOCUMENT,
        Parameters={"commands": ["true"], "executionTimeout": [seconds]},
    )


@pytest.mark.parametrize("seconds", ["1", "4"])
@answers(
    "SendCommand",
    "executionTimeout below 5",
    "the default, 3,600 s",
    source="amazon-ssm-agent, agent/plugins/pluginutil",
)
def test_an_odd_execution_timeout_becomes_an_hour(aws: Aws, seconds: str) -> None:
    instance = aws.running()
    sent = aws.ssm.send_command(
        InstanceIds=[instance],
        DocumentName=DOCUMENT,
        Parameters={"commands": ["true"], "executionTimeout": [seconds]},
        TimeoutSeconds=30,
    )["Command"]
    open_for = sent["ExpiresAfter"] - sent["RequestedDateTime"]
    assert open_for.total_seconds() == 3600 + 30
    assert ended(aws, sent["CommandId"], instance)["Status"] == "Success"


@answers(
    "SendCommand",
    "TimeoutSeconds outside 30 to 2,592,000",
    "ValidationException",
    source="SSM API reference, SendCommand: TimeoutSeconds",
)
def test_delivery_has_its_range(aws: Aws, refuses: Refuses) -> None:
    """Less than 30 s is refused by botocore already."""
    asked = {"aws": aws, "instance": aws.running(), "TimeoutSeconds": 2_592_001}
    refuses("ValidationException", send, **asked)


@answers(
    "SendCommand",
    "a machine is named twice",
    "DuplicateInstanceId",
    source="SSM API reference, SendCommand",
)
def test_a_machine_is_named_once(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    asked: dict[str, Any] = {
        "InstanceIds": [instance, instance],
        "DocumentName": DOCUMENT,
        "Parameters": {"commands": ["true"]},
    }
    refuses("DuplicateInstanceId", aws.ssm.send_command, **asked)


@answers(
    "ListCommands, ListCommandInvocations, DescribeInstanceInformation",
    "more than MaxResults; a token that is none",
    "pages with a NextToken; InvalidNextToken",
    source="SSM API reference, ListCommands",
)
def test_commands_come_in_pages(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    sent = [send(aws, instance) for _ in range(3)]
    pages = list(aws.ssm.get_paginator("list_commands").paginate(PaginationConfig={"PageSize": 2}))
    assert [[c["CommandId"] for c in page["Commands"]] for page in pages] == [
        [sent[2], sent[1]],
        [sent[0]],
    ]
    for call in (
        aws.ssm.list_commands,
        aws.ssm.list_command_invocations,
        aws.ssm.describe_instance_information,
    ):
        refuses("InvalidNextToken", call, NextToken="none")
