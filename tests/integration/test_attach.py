"""`nbdserver attach` with the kernel's own client in a guest: a filesystem outlives servers that end and are killed.

The writer notes each file's checksum once its fsync returned, and beside it four others keep requests under way at any
moment. No request may fail, the filesystem must be whole, and
every file that was noted must be there. What was answered and not flushed when the server was killed is there too:
this host has a journal, and a client that goes on must not go on over less.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_filesystems import GUEST_TOOLS
from tests.support.guest import run_guest
from tests.support.guest_program import put_into
from tests.support.program import Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

ROUNDS = ("restart", "kill", "restart", "kill")

SCRIPT = """
set +e
PATH=$PATH:/setup/folder
LOG=/tmp/keeper.log
URI="nbd://10.0.2.2:$PORT/$EXPORT"
keep() { nbdserver attach "$URI" /dev/nbd0 --request-timeout 3 --log-file $LOG --fork; }
until_logged() { while [ "$(grep -c " $1 " $LOG)" -lt $2 ]; do sleep 0.1; done; }
keep || exit 1
DEV=/dev/nbd0; make_fs ext4; mount_fs ext4 || exit 1
write() {
    n=0
    while [ ! -e /tmp/enough ]; do
        dd if=/dev/urandom of=/mnt/f$n bs=4k count=$((1 + n % 24)) conv=fsync 2> /tmp/dd || { say FAILED; break; }
        sum=$(sha256sum < /mnt/f$n) && echo "${sum%% *}  f$n" >> /tmp/sums
        echo $n > /tmp/count; n=$((n + 1))
    done
}
busy() {
    while [ ! -e /tmp/enough ]; do
        dd if=/tmp/noise of=/mnt/busy$1 bs=128k oflag=direct conv=notrunc 2> /tmp/dd$1 || { say FAILED; break; }
    done
}
more() { was=$(cat /tmp/count); while [ "$(cat /tmp/count)" -lt $((was + 10)) ]; do sleep 0.1; done; }
dd if=/dev/urandom of=/tmp/noise bs=128k count=32 2> /dev/null
for each in 1 2 3 4; do busy $each & done
write & writer=$!
while [ ! -e /tmp/count ]; do sleep 0.1; done
round=0
for what in ROUNDS; do
    more; round=$((round + 1)); say "HOST $what"; until_logged connections_back $round
done
more; touch /tmp/enough; wait
say "$(wc -l < /tmp/sums) files"
umount /mnt; check_fs ext4 && mount_fs ext4 && verify && say "every file is right"
dmesg | grep -c 'I/O error' | { read count; say "I/O errors: $count"; }
kill $(pidof python3); until_logged left_attached 1
umount /mnt
keep; say "keeping again: $?"
dd if=/dev/urandom of=/tmp/data bs=1M count=8 2> /dev/null
dd if=/tmp/data of=/dev/nbd0 bs=1M oflag=direct 2> /dev/null
round=$((round + 1)); say "HOST kill"; until_logged connections_back $round
dd if=/dev/urandom of=/dev/nbd0 bs=4k count=1 seek=20000 oflag=direct conv=fsync 2> /dev/null
echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/nbd0 of=/tmp/again bs=1M count=8 iflag=direct 2> /dev/null
cmp /tmp/data /tmp/again && say "what was answered is there"
exec 5< /dev/nbd0
say "HOST shrink"; until_logged connection_lost $((round + 1))
dd bs=4k count=1 skip=20000 of=/dev/null <&5 2> /dev/null || say "what waits fails"
until_logged ended 1
cat $LOG
"""


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.xdist_group("guest")
def test_a_filesystem_outlives_its_server(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path, memory: Path
) -> None:
    require(*GUEST_TOOLS)
    server = make_server(local_store, create={"disk": "256MiB"}, arguments=["--journal", str(memory)])
    server.start()
    put_into(work / "guest")

    def restart() -> None:
        server.stop()
        server.start()

    def kill() -> None:
        server.kill()
        server.start()

    def shrink() -> None:
        server.stop()
        server.create = {}
        server.host.run(
            "device", "resize", "disk", "128MiB", "--shrink", "--store", server.location, "--journal", "off"
        )
        server.start()

    assert server.port is not None
    said = run_guest(
        server.port,
        "disk",
        SCRIPT.replace("ROUNDS", " ".join(ROUNDS)),
        work,
        {"restart": restart, "kill": kill, "shrink": shrink},
        GUEST_FOLDER=str(work / "guest"),
    )
    assert "every file is right" in said, said
    assert "I/O errors: 0" in said, said
    assert "FAILED" not in said, said
    assert "what was answered is there" in said, said
    # A disk in use is left alone, and kept again; one that is another disk now is torn away.
    assert "warning left_attached" in said, said
    assert "keeping again: 0" in said, said
    assert re.search(r"critical ended reason=.* another disk.* status=20", said), said
    assert "what waits fails" in said, said
