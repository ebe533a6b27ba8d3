#!/usr/bin/env bash
# reason: A program that becomes root for whoever calls it is a way to root; sudo is the one that stays.
# controls: CIS 5.2.7, 7.1.13; Lynis FILE-7524; ANSSI R56, R57
# proven: fresh boot
set -euo pipefail

# dpkg keeps these modes also when a package's new version comes, or the package itself later.
for file in /usr/bin/{chage,chfn,chsh,expiry,gpasswd,mount,newgrp,passwd,su,umount,ssh-agent,fusermount3} \
    /usr/lib/openssh/ssh-keysign; do
    dpkg-statoverride --list "$file" >/dev/null && continue
    if [ -e "$file" ]; then
        dpkg-statoverride --update --add root root 0755 "$file"
    else
        dpkg-statoverride --add root root 0755 "$file"
    fi
done
