#!/bin/bash
# Records what ext4 asks of its disk: a log of nbdkit, for `python -m tests.benchmarks.workloads LOG TRACE`.
#
#   tests/lab/record-trace.sh untar|sqlite LOG
#
# untar: a tree of some thousand files is unpacked twice, one copy deleted, three times over; mounted with discard.
# sqlite: 1,500 transactions of ten rows each, which replace others, in a database with a write-ahead log.
# Needs root, FUSE and loop devices, and nbdkit, nbdfuse, mkfs.ext4.
set -euo pipefail
kind=$1 log=$2
work=$(mktemp -d)
nbdkit -f -U "$work/socket" --filter=log memory 512M logfile="$log" &
disk=$!
until [[ -S $work/socket ]]; do sleep 0.1; done
mkdir "$work/fuse" "$work/mount"
nbdfuse "$work/fuse" --unix "$work/socket" &
until [[ -e $work/fuse/nbd ]]; do sleep 0.1; done
loop=$(losetup --find --show --direct-io=on "$work/fuse/nbd")
end() {
    umount "$work/mount" 2> /dev/null || true
    losetup --detach "$loop"
    fusermount3 -u "$work/fuse"
    kill "$disk"
    wait
    rm -r "$work"
}
trap end EXIT
mkfs.ext4 -q "$loop"
mount -o discard "$loop" "$work/mount"
if [[ $kind == untar ]]; then
    for _ in 1 2 3; do
        for copy in 1 2; do
            mkdir -p "$work/mount/$copy"
            tar -C /usr/lib/python3.11 -cf - . | tar -C "$work/mount/$copy" -xf -
            sync
        done
        rm -r "$work/mount/1"
        sync
    done
else
    python3 - "$work/mount/database" << 'PYTHON'
import random, sqlite3, sys

chance = random.Random(1)
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
database.execute("CREATE INDEX by_name ON entries (name)")
for _ in range(1500):
    with database:
        for _ in range(10):
            row = chance.randrange(60000), f"{chance.getrandbits(40):x}", chance.randbytes(chance.randrange(100, 3000))
            database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", row)
PYTHON
    sync
fi
