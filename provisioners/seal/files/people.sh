#!/usr/bin/env bash
# Who may come in, by which keys, and with which of its own the machine answers. Over SSH that is
# the bake itself: then this runs at shutdown.
set -euo pipefail

# A deleted file stays in its blocks, which a snapshot keeps: so what is secret is written over first.
# -u deletes; ext4 and xfs write over a file where it is.
wipe() {
    find "$@" -type f -exec shred --iterations=1 -u {} + 2>/dev/null || true
}

rm -f /etc/sudoers.d/90-cloud-init-users

# People are not part of an image. Services have system users, below 1000.
while IFS=: read -r name _ uid _; do
    if [ "$uid" -ge 1000 ] && [ "$uid" -lt 65534 ]; then
        userdel --force --remove "$name" || [ "$?" -eq 12 ] # 12: no home to remove
    fi
done </etc/passwd
while IFS=: read -r name hash _; do
    # Stars and exclamation marks alone mean that no password fits.
    if [ -z "$hash" ] || [ -n "${hash//[*!]/}" ]; then
        usermod --password '!*' "$name"
    fi
done </etc/shadow
rm -f /etc/{passwd,shadow,group,gshadow,subuid,subgid}-

wipe /etc/ssh -name 'ssh_host_*'
rm -f /etc/ssh/ssh_host_*
# Debian makes new ones on a first boot only, and an empty machine-id does not count as one.
if [ -f /usr/lib/systemd/system/sshd-keygen.service ]; then
    install -d -m 0755 /etc/systemd/system/sshd-keygen.service.d
    cat >/etc/systemd/system/sshd-keygen.service.d/when-missing.conf <<'CONF'
[Unit]
ConditionFirstBoot=
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
CONF
fi
for home in /root /home/*; do
    wipe "$home" -maxdepth 2 \( -path '*/.ssh/*' -o -name '.*_history' \)
    rm -rf "$home"/.ssh/authorized_keys* "$home"/.ssh/known_hosts* "$home"/.cache \
        "$home"/.*_history "$home"/.lesshst "$home"/.viminfo "$home"/.wget-hsts
done
