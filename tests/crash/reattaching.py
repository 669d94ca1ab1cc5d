"""A filesystem of a guest's kernel over a server that is stopped and killed, again and again:

    python -m tests.crash.reattaching --rounds 20 --filesystem ext4|xfs|zfs [--client FOLDER] [--kind KIND]...

By `nbdserver attach`, or by the nbd-client of another system's folder (tests/lab/newer-clients.sh makes one), which has
to attach again by itself. Kinds of rounds:

    restart     SIGTERM and a start, under a writer that syncs each file and four that keep requests under way
    kill        kill -9 and a start, under the same
    unflushed   kill -9 and a start right after 8 MiB of direct writes that were answered and not flushed; then one more
                file with a sync; then the 8 MiB are read back

A pause is the longest that one file took, with its sync. At the end the filesystem is checked, and every file that was
synced is compared. Any loss, I/O error or damage is a failure. `requirements` says what it needs; ZFS also needs what
tests/lab/guest-zfs.sh makes, in GUEST_ZFS. It has no direct writes, so of `unflushed` its last file alone
says something.
"""

import argparse
import re
import shutil
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import LAB
from tests.support.guest import run_guest
from tests.support.guest_program import put_into
from tests.support.memory import folder_in_memory
from tests.support.program import Host, Server
from tests.support.requirements import require

GUEST_TOOLS = ("qemu-system-x86_64", "cpio", "mkfs.ext4", "mkfs.xfs", "apt-get")
KINDS = ("restart", "kill", "unflushed")
SIZE = "768MiB"
SECONDS_OF_A_ROUND = 90
"""Far above what one takes: the guest is emulated, on a machine that may be busy."""

REQUEST_SECONDS = 3
"""How long the kernel waits for a reply: what was under way at a kill waits so long."""

SCRIPT = """
set +e
PATH=/setup/folder:$PATH
DEV=/dev/nbd0
URI="nbd://10.0.2.2:$PORT/$EXPORT"
@ATTACH@
make_fs @FILESYSTEM@; mount_fs @FILESYSTEM@ || exit 1
ended() { nc 10.0.2.2 @TOLD@ < /dev/null; }
until_ended() { while [ "$(ended)" -lt $1 ]; do sleep 0.05; done; }
n=0
put() {
    before=$(now)
    dd if=/dev/urandom of=/mnt/f$n bs=4k count=$((1 + n % 24)) conv=fsync 2> /tmp/dd || { say FAILED; cat /tmp/dd; }
    awk -v a=$before -v b=$(now) '{ if (b - a > $1) print b - a; else print $1 }' /tmp/longest > /tmp/longest.new
    mv /tmp/longest.new /tmp/longest
    sum=$(sha256sum < /mnt/f$n) && echo "${sum%% *}  f$n" >> /tmp/sums
    n=$((n + 1))
}
more() { for each in 1 2 3 4 5; do put; done; }
busy() {
    while [ ! -e /tmp/enough ]; do
        dd if=/tmp/noise of=/mnt/busy$1 bs=128k oflag=direct conv=notrunc 2> /tmp/dd$1 || { say FAILED; break; }
    done
}
dd if=/dev/urandom of=/tmp/noise bs=128k count=32 2> /dev/null
dd if=/dev/zero of=/mnt/direct bs=1M count=8 conv=fsync 2> /dev/null
echo 0 > /tmp/longest
[ @KIND@ = unflushed ] || for each in 1 2 3 4; do busy $each & done
for round in $(seq @ROUNDS@); do
    if [ @KIND@ = unflushed ]; then
        dd if=/dev/urandom of=/tmp/data bs=1M count=8 2> /dev/null
        dd if=/tmp/data of=/mnt/direct bs=1M oflag=direct conv=notrunc 2> /tmp/dd || say FAILED
    else
        more
    fi
    echo 0 > /tmp/longest
    say "HOST @KIND@"; until_ended $round
    put
    [ @KIND@ = unflushed ] || more
    say "ROUND $round $(cat /tmp/longest)"
    [ @KIND@ = unflushed ] || continue
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/mnt/direct of=/tmp/again bs=1M iflag=direct 2> /dev/null
    cmp /tmp/data /tmp/again || say FAILED
done
touch /tmp/enough; wait
say "$(wc -l < /tmp/sums) files"
unmount_fs @FILESYSTEM@; check_fs @FILESYSTEM@ && mount_fs @FILESYSTEM@ && verify && say "every file is right"
say "I/O errors: $(dmesg | grep -c 'I/O error')"
unmount_fs @FILESYSTEM@
"""

ATTACH = 'nbdserver attach "$URI" $DEV --request-timeout @SECONDS@ --log-file /tmp/log --fork || exit 1'

NBD_CLIENT = """
other=/setup/folder/other
$other/ld.so --library-path $other $other/nbd-client 10.0.2.2 $PORT $DEV -N "$EXPORT" -connections 3 -persist \\
    -timeout @SECONDS@ @OPTIONS@ > /tmp/other 2>&1 &
for each in $(seq 100); do [ "$(cat /sys/block/nbd0/size)" = 0 ] || break; sleep 0.1; done
[ "$(cat /sys/block/nbd0/size)" != 0 ] || { cat /tmp/other; exit 1; }
"""


class Ends:
    """How often the server ended, told to whoever connects: a guest asks before it writes what must come after."""

    def __init__(self) -> None:
        self.count = 0
        ends = self

        class Answer(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"%d\n" % ends.count)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    @contextmanager
    def told(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def put_client_into(folder: Path, root: Path) -> None:
    """The nbd-client of the system in `root`, with its loader and libraries, as `folder/other`."""
    other = folder / "other"
    other.mkdir(parents=True)
    program = "/usr/sbin/nbd-client"
    said = subprocess.run(["chroot", str(root), "ldd", program], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"(/\S+) \(0x", said):
        shutil.copy(root / path.lstrip("/"), other)
    (other / "ld.so").symlink_to(next(other.glob("ld-linux*")).name)
    shutil.copy(root / program.lstrip("/"), other / "nbd-client")


def rounds(kind: str, filesystem: str, count: int, folder: Path, root: Path | None, options: str) -> list[float]:
    """The pauses of so many rounds of a kind, in seconds. AssertionError: something was lost."""
    (folder / "store").mkdir(parents=True)
    guest = folder / "guest"
    if root is None:
        put_into(guest)
    else:
        put_client_into(guest, root)
    ends = Ends()
    with folder_in_memory() as memory, ends.told():
        server = Server(
            Host(folder), str(folder / "store"), create={"disk": SIZE}, arguments=["--journal", str(memory)]
        )
        server.start()
        assert server.port is not None

        def end_and_start() -> None:
            server.stop() if kind == "restart" else server.kill()
            ends.count += 1
            server.start()

        attach = ATTACH if root is None else NBD_CLIENT.replace("@OPTIONS@", options)
        script = SCRIPT.replace("@ATTACH@", attach)
        values = {
            "FILESYSTEM": filesystem,
            "TOLD": ends.port,
            "KIND": kind,
            "ROUNDS": count,
            "SECONDS": REQUEST_SECONDS,
        }
        for name, value in values.items():
            script = script.replace(f"@{name}@", str(value))
        limit = str(120 + SECONDS_OF_A_ROUND * count)
        try:
            said = run_guest(
                server.port, "disk", script, folder, {kind: end_and_start}, GUEST_FOLDER=str(guest), GUEST_TIMEOUT=limit
            )
        finally:
            server.close()
    judge(said, count)
    return [float(pause) for pause in re.findall(r"ROUND \d+ ([0-9.]+)", said)]


def judge(said: str, count: int) -> None:
    """AssertionError: what a guest said is not what it has to."""
    assert "FAILED" not in said, said
    assert "every file is right" in said, said
    assert "I/O errors: 0" in said, said
    assert len(re.findall(r"ROUND \d+ [0-9.]+", said)) == count, said


def main() -> int:
    parser = argparse.ArgumentParser(description="a guest's filesystem over a server that is stopped and killed")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--filesystem", choices=("ext4", "xfs", "zfs"), default="ext4")
    parser.add_argument("--kind", choices=KINDS, action="append", help="[default: each of them]")
    parser.add_argument("--client", type=Path, help="the system whose nbd-client attaches  [default: nbdserver attach]")
    parser.add_argument("--client-options", default="", help="more of them for that nbd-client")
    chosen = parser.parse_args()
    require(*GUEST_TOOLS)
    assert LAB.is_dir()
    status = 0
    for kind in chosen.kind or KINDS:
        with tempfile.TemporaryDirectory(prefix="nbd-") as name:
            try:
                found = rounds(kind, chosen.filesystem, chosen.rounds, Path(name), chosen.client, chosen.client_options)
            except AssertionError as error:
                print(f"{kind}: FAILED: {str(error)[-4000:]}", flush=True)
                status = 1
                continue
        middle = statistics.median(found)
        print(
            f"{chosen.filesystem}, {kind}: {len(found)} rounds, pause {middle:.1f} s (worst {max(found):.1f})",
            flush=True,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
