"""A changed file is told, by the machine's own rules; on one folder, for all of them take long."""

from testinfra.host import Host

# 4: files changed. The record of this folder alone is made and used where no real one is yet.
CHANGE = """
set -eu
at=$(mktemp -d /var/tmp/aide.XXXXXX)
trap 'rm -rf "$at" /etc/amibuild-aide' EXIT
sed "s|/var/lib/aide|$at|" /etc/aide/aide.conf >"$at/aide.conf"
mkdir /etc/amibuild-aide
echo one >/etc/amibuild-aide/file
aide --config "$at/aide.conf" --limit ^/etc/amibuild-aide --init >/dev/null
mv "$at/aide.db.new" "$at/aide.db"
aide --config "$at/aide.conf" --limit ^/etc/amibuild-aide --check >/dev/null && echo unchanged
echo two >/etc/amibuild-aide/file
aide --config "$at/aide.conf" --limit ^/etc/amibuild-aide --check || echo "ended with $?"
"""


def test_a_changed_setting_is_told(host: Host) -> None:
    told = host.run("bash -c %s", CHANGE)
    lines = told.stdout.splitlines()
    assert lines[:1] == ["unchanged"], told.stdout + told.stderr
    assert lines[-1] == "ended with 4", told.stdout
    assert "/etc/amibuild-aide/file" in told.stdout


def test_it_looks_each_day(host: Host) -> None:
    shown = "systemctl show --property=UnitFileState,ActiveState,TimersMonotonic aide-check.timer"
    seen = host.check_output(shown)
    assert "UnitFileState=enabled" in seen and "ActiveState=active" in seen
    assert "OnUnitActiveUSec=1d" in seen
