# shellcheck shell=dash
# Read by login shells: one that nobody uses ends after 15 minutes, where the shell knows TMOUT.
if [ -z "${TMOUT-}" ]; then # a second reading would end some shells
    readonly TMOUT=900
    export TMOUT
fi
umask 027
# A session of SSM does not go through PAM, where the limit is set for all others.
ulimit -c 0
