"""The log of a job while it is written: it is in memory, and may be of any length.

It is a file and no pipe, which a process that the script leaves behind would hold open. So its
middle is dropped behind the script's back: what is left has holes, and offsets in it stay right for
who follows it (said.py). A script that prints more in a fiftieth of a second than /run takes finds
it full all the same.
"""

from __future__ import annotations

# Text becomes a tenth of it. What does not shrink would take 480 commands: of it less comes.
LOG_LIMIT_BYTES = 8 * 1024 * 1024
PACKED_LIMIT_BYTES = 1024 * 1024
LOG_CUT_BYTES = 512 * 1024
# Of more than this only what a reply takes is kept. Debian's /run has a tenth of the memory: 100 MB
# of a machine with 1 GB.
LOG_HELD_BYTES = 32 * 1024 * 1024
# How often it is looked at, and while it grows fast: 500 MB/s are 10 MB then.
LOOK_S, LOOK_SOON_S, FAST_BYTES = 0.1, 0.02, 1024 * 1024
# Held for a reply of LOG_CUT_BYTES, for when nothing else is left.
RESERVE_BYTES = 2 * 1024 * 1024
# With fewer free blocks, of 4 KiB mostly, it was full.
FULL_BLOCKS = 16


def bounding(at: str) -> str:
    """Functions for the shell of the job's unit. `watch_log` drops middles until its input ends; 6
    is the log, whose offset the shell knows without another program. `drop_middle` is told the
    log's size, `cut_log` how much to print at most; the file `cut` says what is gone, and `full`
    that there was no room left.
    """
    head = LOG_LIMIT_BYTES // 8
    return f"""\
note_full() {{
    [ "$(stat -f -c %a .)" -lt {FULL_BLOCKS} ] && : >full
}}
drop_middle() {{
    next=$(($1 - {LOG_LIMIT_BYTES - head}))
    [ "$next" -gt {head} ] || return 0
    note_full
    echo {head} $next >cut.new && mv cut.new cut
    fallocate --punch-hole --offset {head} --length $((next - {head})) log
}}
watch_log() {{
    exec 8>&-
    cd {at} || exit
    next={head} seen=0 pause={LOOK_S}
    while read -rt $pause; [ $? -gt 128 ]; do
        read -r _ size </proc/self/fdinfo/6
        pause={LOOK_S}
        [ $((size - seen)) -lt {FAST_BYTES} ] || pause={LOOK_SOON_S}
        seen=$size
        [ $(({head} + size - next)) -le {LOG_HELD_BYTES} ] || drop_middle "$size" || exit
    done
}}
cut_log() {{
    size=$(stat -c %s log)
    [ "$size" -gt "$1" ] || {{
        cat log
        return
    }}
    head -c $(($1 / 8)) log
    printf '\\n... %s bytes left out ...\\n' $((size - $1))
    tail -c $(($1 - $1 / 8)) log
}}
"""
