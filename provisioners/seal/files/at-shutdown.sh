#!/usr/bin/env bash
# Runs once, while the builder shuts down and no service runs any more. A failure is not seen
# here, but on the finished disk: each line has its rule in hygiene.py. So one never stops the next.
set -uo pipefail

# What the bake itself came by: each waited for this moment.
policy=/usr/sbin/policy-rc.d
printf '#!/bin/sh\nexit 101\n' >$policy
chmod 0755 $policy
# A package that goes here takes its host keys along, and does not write them over.
find /etc/ssh -name 'ssh_host_*' -type f -exec shred --iterations=1 {} + 2>/dev/null
for put_off in /var/lib/amibuild/at-shutdown/*.sh /run/amibuild-seal/people.sh; do
    [ ! -e "$put_off" ] || bash "$put_off" </dev/null
done
rm -rf $policy /var/lib/amibuild/at-shutdown
rmdir /var/lib/amibuild 2>/dev/null

# Written over, since a deleted file stays in its blocks; run.sh says more.
for secret in /var/lib/amazon/ssm/{i-*,Vault} /var/lib/systemd/random-seed /var/lib/systemd/credential.secret \
    /boot/efi/loader/random-seed /var/lib/systemd/coredump /var/crash /tmp /var/tmp; do
    find "$secret" -xdev -type f -exec shred --iterations=1 {} + 2>/dev/null
done

# The agent's registration belongs to this instance.
find /var/lib/amazon/ssm -mindepth 1 -maxdepth 1 \( -name 'i-*' -o -name Vault \) -exec rm -rf {} +
rm -rf /var/lib/dhcp/* /var/lib/dhcpcd/* /var/lib/NetworkManager/*lease*
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /boot/efi/loader/random-seed
rm -f /var/lib/systemd/timers/stamp-*

rm -rf /var/log/journal/*
# tmpfiles.d makes these three anew at boot.
rm -f /var/log/wtmp /var/log/btmp /var/log/lastlog /var/lib/wtmpdb/* /var/lib/lastlog/*
# Of a program that crashed, with what it knew.
rm -rf /var/lib/systemd/coredump/* /var/lib/systemd/pstore/* /var/crash/*
find /var/log -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.[0-9]' -o -name '*.old' \) -delete
find /var/log -type f -size +0 -exec truncate -s 0 {} +

find /tmp /var/tmp -mindepth 1 -xdev -delete
rm -rf /root/.bash_history /root/.cache /root/amibuild*

# Empty, not absent: so the next boot makes one, and does not take itself for a first boot that
# may reset which units are enabled. Source: machine-id(5).
rm -f /var/lib/dbus/machine-id
ln -s /etc/machine-id /var/lib/dbus/machine-id
truncate -s 0 /etc/machine-id
sync
# Also what was freed here.
fstrim / 2>/dev/null || true
