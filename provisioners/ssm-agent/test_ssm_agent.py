"""The agent that reaches the machine is the pinned one, or the platform's own."""

from typing import Any

from testinfra.host import Host

PLATFORM = "/usr/share/amibuild-platform/agent"


def test_an_agent_is_installed_and_running(host: Host, facts: dict[str, Any]) -> None:
    if host.file(PLATFORM).exists:
        agent = host.file(PLATFORM).content_string.split()[0]
        assert host.package(agent).is_installed
        return
    agent = host.package("amazon-ssm-agent")
    assert agent.is_installed
    assert agent.version.partition("-")[0] == facts["parameters"]["version"]
    assert host.service("amazon-ssm-agent").is_enabled
    assert host.service("amazon-ssm-agent").is_running
