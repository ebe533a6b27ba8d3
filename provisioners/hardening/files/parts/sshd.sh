#!/usr/bin/env bash
# reason: SSM is the way in, without an open port; with `ssh = true` keys alone let anybody in.
# controls: CIS 5.1.1, 5.1.5, 5.1.7, 5.1.8, 5.1.9, 5.1.17, 5.1.20, 5.1.21; Lynis SSH-7408; ANSSI R62, R67, R79
# proven: fresh boot
set -euo pipefail

if [ "$PARAM_SSH" = true ]; then
    bash files/install.sh openssh-server
    # The first value that sshd reads counts, so no file of a name behind this one undoes it.
    install -D -m 0600 files/sshd/amibuild.conf /etc/ssh/sshd_config.d/00-amibuild.conf
    systemctl enable ssh.service
    rm -f /etc/cloud/cloud.cfg.d/99_amibuild_no_ssh.cfg
else
    # Those that dpkg knows: apt, without its lists, has not heard of the others.
    mapfile -t there < <(dpkg-query --show --showformat='${Package}\n' \
        openssh-server openssh-sftp-server 2>/dev/null || true)
    [ "${#there[@]}" -eq 0 ] || DEBIAN_FRONTEND=noninteractive apt-get \
        -o DPkg::Lock::Timeout=300 purge --auto-remove --yes "${there[@]}"
    rm -rf /etc/ssh/sshd_config.d /etc/ssh/sshd_config /etc/systemd/system/ssh*.service.d
    install -D -m 0644 files/sshd/no-host-keys.cfg /etc/cloud/cloud.cfg.d/99_amibuild_no_ssh.cfg
fi
