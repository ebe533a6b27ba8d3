"""Both drivers on real machines: what runs inside, and what reaches out and in."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local import disk as disks
from amibuild.local.machines.base import Driver
from amibuild.wait import Look, until
from tests.local.machines.running import API_SAYS, COMMAND_S, KEY, Running, fetch

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn, mounts and veth need root"),
]

# -- inside ---------------------------------------------------------------------------------------


def test_it_boots_whole(running: Running) -> None:
    """`running`, not `degraded`: no unit has failed."""
    assert running.ask("systemctl is-system-running --wait") == "running"


def test_cloud_init_brought_user_data_key_and_name(running: Running) -> None:
    assert running.ask("cat /root/user-data-ran") == "ran"
    assert running.ask("cat ~admin/.ssh/authorized_keys") == KEY
    assert running.ask("hostname") == "ip-10-213-1-2"
    assert running.ask("cat /run/cloud-init/instance-data.json") != ""
    assert running.ask("cat /var/lib/cloud/data/instance-id") == running.spec.instance_id


def test_a_command_has_its_own_output_and_exit_code(running: Running) -> None:
    assert running.run("echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")


def test_a_command_that_a_signal_ends_has_the_shells_exit_code(running: Running) -> None:
    code, _, _ = running.run("kill -KILL $$")
    assert code == 128 + signal.SIGKILL


def test_a_script_runs_by_its_own_interpreter_as_root_in_a_clean_environment(
    running: Running,
) -> None:
    script = b"#!/usr/bin/env python3\nimport os\nprint(os.getuid(), sorted(os.environ))\n"
    command = running.machine.execute(script, name=f"python-{secrets.token_hex(4)}")
    until(lambda: Look("running", command.poll()), what="a command", timeout_s=COMMAND_S)
    uid, _, names = command.output()[0].decode().partition(" ")
    assert uid == "0"
    assert "'HOME'" in names
    assert "AWS" not in names
    assert "PYTHONPATH" not in names


def test_large_output_is_cut_at_1_mib_and_does_not_hold_up_the_command(running: Running) -> None:
    code, out, err = running.run("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2")
    assert (code, len(out), err) == (0, 1 << 20, "end\n")


def test_cancelling_ends_all_that_the_command_started(running: Running) -> None:
    mark = f"3141{secrets.randbelow(10**6):06}"
    script = f"#!/bin/bash\nsetsid sleep {mark} & sleep {mark}\n".encode()
    command = running.machine.execute(script, name=f"cancelled-{mark}")
    until(
        lambda: Look("none", running.run(f"pgrep -f 'sleep {mark}'")[0] == 0 or None),
        what="the command",
        timeout_s=COMMAND_S,
    )
    command.cancel()
    code = until(
        lambda: Look("running", command.poll()), what="the cancelled command", timeout_s=60
    )
    assert code == 128 + signal.SIGTERM
    assert running.run(f"pgrep -f '^sleep {mark}'")[0] == 1


def test_a_command_survives_that_systemd_starts_itself_anew(running: Running) -> None:
    """As an update of systemd does, in the middle of a provisioner."""
    assert running.run("systemctl daemon-reexec; sleep 1; echo done; exit 3")[:2] == (3, "done\n")


# -- the network ----------------------------------------------------------------------------------


def test_imds_answers_inside(running: Running) -> None:
    url = "http://169.254.169.254/latest/meta-data/instance-id"
    assert running.ask(fetch(url)) == running.spec.instance_id
    assert running.asked[-1].path == "/latest/meta-data/instance-id"


def test_the_endpoints_address_on_the_host_works_inside(running: Running) -> None:
    url = f"http://127.0.0.1:{running.spec.endpoint_port}/"
    assert running.ask(fetch(url)) == API_SAYS.decode()


def test_no_other_port_of_the_hosts_loopback_is_reachable_from_inside(running: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as secret:
        port = secret.getsockname()[1]
        connect = "exec 3<>/dev/tcp/{address}/{port}"
        # Its own loopback, QEMU's name for the host, slirp4netns' name for the host.
        gateway = running.machine.private_ip.rpartition(".")[0]
        host = int(running.machine.private_ip.rpartition(".")[2]) - 1
        for address in ("127.0.0.1", f"{gateway}.{host}", "10.0.2.2"):
            script = f"timeout 5 bash -c '{connect.format(address=address, port=port)}'"
            assert running.run(script)[0] != 0, f"reached the host by {address}"
        secret.setblocking(False)
        with pytest.raises(BlockingIOError):
            secret.accept()


def test_the_archive_is_reachable_from_inside(running: Running) -> None:
    running.ask("apt-get update -o APT::Update::Error-Mode=any >/dev/null")


def test_the_host_reaches_the_machine_on_port_22(running: Running) -> None:
    """By a server of our own where the image has no sshd: any server proves the way."""
    running.run(
        "systemctl is-active --quiet ssh || systemd-run --quiet --unit=fake-ssh "
        "--socket-property=ListenStream=22 --socket-property=Accept=yes "
        "--property=StandardInput=socket /bin/echo SSH-2.0-test"
    )
    assert running.machine.ssh_port == 22

    def look() -> Look[bytes]:
        with socket.create_connection((running.machine.private_ip, 22), 10) as connection:
            banner = connection.makefile("rb").readline()
        return Look("silent", banner or None)

    assert until(look, what="a banner", timeout_s=60).startswith(b"SSH-2.0-")


@pytest.mark.parametrize("running", [Driver.NSPAWN], indirect=True, ids=str)
def test_its_firewall_is_its_own(running: Running) -> None:
    """A rule set in the machine must not become the host's, whose kernel it has."""
    if running.run("command -v nft")[0] != 0:
        running.ask("apt-get update -qq && apt-get install -qqy nftables >/dev/null")
    running.ask("nft add table inet amibuild_test")
    assert "amibuild_test" in running.ask("nft list tables")
    assert b"amibuild_test" not in proc.run(["nft", "list", "tables"], check=False).stdout
    running.ask("nft delete table inet amibuild_test; sysctl -qw net.ipv4.tcp_syncookies=1")


# -- the host's view ------------------------------------------------------------------------------


def test_the_console_is_bounded_and_tells_of_the_boot(running: Running) -> None:
    console = running.machine.console()
    assert b"systemd" in console
    running.ask("head -c 300000 /dev/zero | tr '\\0' y | fold -w 80 >/dev/console; sleep 1")
    assert len(running.machine.console()) <= 64 * 1024


def test_its_processes_are_known_and_alive(running: Running) -> None:
    pids = running.machine.host_pids()
    assert len(pids) >= 3
    assert all(Path("/proc", str(pid)).exists() for pid in pids[:2])


# -- its end --------------------------------------------------------------------------------------


def test_a_shut_down_machine_leaves_its_disk_and_nothing_else(running: Running) -> None:
    """The last one of its machine: under TCG another boot takes minutes."""
    assert running.left()
    running.ask("echo kept > /root/kept")
    running.machine.shutdown()
    running.await_exit()
    assert not running.left()
    assert running.machine.host_pids() == ()
    assert b"Power" in running.machine.console()[-4000:]
    mount_point = running.spec.run_dir.parent / "mounted"
    mount_point.mkdir()
    read = disks.on_root(running.spec.disk, mount_point, ["cat", mount_point / "root/kept"])
    assert read.text == "kept\n"
