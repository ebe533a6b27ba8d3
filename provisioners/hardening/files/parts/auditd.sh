#!/usr/bin/env bash
# reason: Who changed users, rights, time, modules or this record itself can be told afterwards.
# controls: CIS 6.2.1.1, 6.2.1.2, 6.2.3.1, 6.2.3.4, 6.2.3.8, 6.2.3.19; Lynis ACCT-9628, ACCT-9630, ACCT-9634; ANSSI R73
# proven: own kernel
# packages: auditd
#
# Not `audit=1` on the kernel's command line: with it, an emulated machine had soft lockups.
set -euo pipefail

install -D -m 0640 files/auditd/amibuild.rules /etc/audit/rules.d/50-amibuild.rules
if [ "$(dpkg --print-architecture)" = amd64 ]; then
    # The same of 32-bit programs, whose system calls have other numbers.
    sed -n 's/arch=b64/arch=b32/p' files/auditd/amibuild.rules >>/etc/audit/rules.d/50-amibuild.rules
fi
augenrules # puts them together, which Debian does at each boot; `augenrules --load` does it later
for unit in auditd audit-rules; do
    install -D -m 0644 files/auditd/not-in-a-container.conf \
        "/etc/systemd/system/$unit.service.d/amibuild.conf"
    systemctl enable "$unit.service"
done
install -m 0644 files/auditd/load.conf /etc/systemd/system/audit-rules.service.d/amibuild-load.conf
