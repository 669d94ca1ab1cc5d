#!/bin/bash
# Attach an NBD export with the real Linux kernel client (nbd.ko), inside a small virtual machine.
#
#   guest-nbd.sh PORT EXPORT [FS...]        FS: ext4 xfs btrfs zfs (default: ext4 xfs)
#
# The server must listen on 127.0.0.1:PORT of this host and EXPORT must be writable: its content is destroyed.
# Debian's cloud kernel boots under qemu (software emulation) with an initramfs made here from busybox, nbd-client and the
# mkfs/fsck programs of this host. The guest reaches the host's loopback as 10.0.2.2 through qemu's user networking.
# For each FS the guest attaches, makes the filesystem, mounts it, writes files, syncs, trims, unmounts, detaches,
# attaches again, checks the filesystem and compares every file's checksum.
# Prints the guest's serial console; exits 0 only if the guest printed "GUEST PASS".
#
# Environment:
#   GUEST_CACHE    where the kernel and the base initramfs are kept (default: ~/.cache/nbdserver/guest)
#   GUEST_TIMEOUT  seconds for the whole guest (default 180)
#   GUEST_MIB      MiB of file data per filesystem (default 48)
#   GUEST_CONNS    connections per device, nbd-client -C (default 1)
#   GUEST_SMP      virtual CPUs (default 1)
#   GUEST_SCRIPT   a shell script to run in the guest instead of the built-in one (it may use the functions of this one)
#   GUEST_FOLDER   a folder that the guest has as /setup/folder
#   GUEST_ZFS      what guest-zfs.sh made for this kernel (needed for FS zfs)
#   GUEST_KERNEL   kernel meta-package (default linux-image-cloud-amd64, 6.1; linux-image-6.12-cloud-amd64 is in Debian 12's
#                  updates too and is the one whose nbd.ko sends WRITE_ZEROES)
# Needs (Debian 12): qemu-system-x86 busybox-static cpio kmod nbd-client e2fsprogs xfsprogs btrfs-progs
set -euo pipefail

[ $# -ge 2 ] || { sed -n "2,26p" "$0"; exit 2; }
port=$1 export_name=$2; shift 2
filesystems=${*:-ext4 xfs}
cache=${GUEST_CACHE:-$HOME/.cache/nbdserver/guest}
limit=${GUEST_TIMEOUT:-180}
mkdir -p "$cache"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

# --- the kernel: Debian's cloud flavour (nbd, virtio and xfs as modules, ext4 built in); unpacked, never installed
kernel_package=$(apt-cache depends "${GUEST_KERNEL:-linux-image-cloud-amd64}" | awk '/Depends: linux-image-/ {print $2; exit}')
[ -n "$kernel_package" ] || { echo "no kernel package known: run apt-get update first" >&2; exit 2; }
release=${kernel_package#linux-image-}
root=$cache/kernel-$release
if [ ! -e "$root/.done" ]; then
    rm -rf "$root"; mkdir -p "$root"
    (cd "$work" && apt-get download -qq "$kernel_package" 2>/dev/null && dpkg-deb -x ./linux-image-*.deb "$root")
    if [ -d "$root/usr/lib/modules" ] && [ ! -d "$root/lib/modules" ]; then mkdir -p "$root/lib"; ln -s ../usr/lib/modules "$root/lib/modules"; fi
    depmod -b "$root" "$release"
    touch "$root/.done"
fi

# --- the base initramfs: programs with their libraries, and modules in load order
programs="nbd-client mkfs.ext4 e2fsck mkfs.xfs xfs_repair mkfs.btrfs btrfs blkdiscard fstrim"
modules="virtio_pci virtio_net nbd xfs btrfs crc32c_generic"
base=$cache/base-$release${GUEST_ZFS:+-zfs}.cpio.gz
if [ ! -e "$base" ] || [ "$0" -nt "$base" ] || [ "${GUEST_ZFS:-$0}" -nt "$base" ]; then
    tree=$work/tree
    mkdir -p "$tree"/{bin,proc,sys,dev,mnt,run,tmp,etc,modules,lib64}
    cp /bin/busybox "$tree/bin/"
    for p in $programs; do
        path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$p") || { echo "missing program: $p" >&2; exit 2; }
        cp -L "$path" "$tree/bin/"
        ldd "$path" | grep -o '/[^ ]*' | while read -r lib; do mkdir -p "$tree$(dirname "$lib")"; cp -Lu "$lib" "$tree$lib"; done
    done
    mkdir -p "$tree/usr/lib/x86_64-linux-gnu"; cp -L /lib/x86_64-linux-gnu/libgcc_s.so.1 "$tree/usr/lib/x86_64-linux-gnu/" 2>/dev/null || true
    for m in $modules; do modprobe -d "$root" -S "$release" --show-depends "$m" || true; done |
        awk '$1 == "insmod" && !seen[$2]++ {print $2}' > "$work/list"
    while read -r ko; do   # kernels from 6.7 on have their modules compressed
        case $ko in
            *.xz) xz -dc "$ko" > "$tree/modules/$(basename "$ko" .xz)"; basename "$ko" .xz;;
            *) cp "$ko" "$tree/modules/"; basename "$ko";;
        esac
    done < "$work/list" > "$tree/modules/order"
    if [ -n "${GUEST_ZFS:-}" ]; then
        cp "$GUEST_ZFS"/modules/*.ko "$tree/modules/"; cat "$GUEST_ZFS/order" >> "$tree/modules/order"
        cp -r "$GUEST_ZFS/root/." "$tree/"; mkdir -p "$tree/etc/zfs"
    fi
    (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) > "$base.new"; mv "$base.new" "$base"
fi

# --- this run's part: a second cpio archive appended to the first (the kernel unpacks both)
mkdir -p "$work/run/setup"
cat > "$work/run/setup/env" <<E
PORT=$(printf %q "$port") EXPORT=$(printf %q "$export_name") FILESYSTEMS=$(printf %q "$filesystems")
MIB=${GUEST_MIB:-48} CONNS=${GUEST_CONNS:-1}
E
[ -z "${GUEST_FOLDER:-}" ] || cp -r "$GUEST_FOLDER" "$work/run/setup/folder"
cat > "$work/run/init" <<'E'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
ln -sf /proc/mounts /etc/mtab
for ko in $(cat /modules/order); do insmod /modules/$ko 2>/dev/null; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
. /setup/env
. /setup/functions
( set -e; . /setup/script ) ; rc=$?
[ $rc = 0 ] && say "GUEST PASS" || { say "GUEST FAIL $rc"; dmesg | tail -25; }
sync; poweroff -f
E
cat > "$work/run/setup/functions" <<'E'
say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }
attach() { nbd-client 10.0.2.2 $PORT ${DEV:=/dev/nbd0} -N "$EXPORT" -C $CONNS "$@" > /tmp/nbd.log 2>&1 || { cat /tmp/nbd.log; return 1; }
    local i=0; while [ "$(cat /sys/block/${DEV#/dev/}/size)" = 0 ]; do sleep 0.1; i=$((i+1)); [ $i -lt 50 ] || return 1; done; }
detach() { nbd-client -d $DEV > /tmp/nbd.log 2>&1 || { cat /tmp/nbd.log; return 1; }
    local i=0; while [ -e /sys/block/${DEV#/dev/}/pid ]; do sleep 0.1; i=$((i+1)); [ $i -lt 50 ] || return 1; done; }
describe() { local q=/sys/block/nbd0/queue
    say "device: $(($(cat /sys/block/nbd0/size) / 2048)) MiB, ro $(cat /sys/block/nbd0/ro), logical block $(cat $q/logical_block_size)," \
        "cache '$(cat $q/write_cache)', fua $(cat $q/fua), discard max $(cat $q/discard_max_bytes), zeroes max $(cat $q/write_zeroes_max_bytes)"; }
mb() { awk -v a=$1 -v b=$2 -v m=$3 'BEGIN {d = b - a; printf "%.2f s, %.1f MB/s", d, m * 1.048576 / (d > 0 ? d : 0.01)}'; }
now() { cut -d' ' -f1 /proc/uptime; }
make_fs() { case $1 in
    ext4) mkfs.ext4 -q -F $DEV;; xfs) mkfs.xfs -q -f $DEV;; btrfs) mkfs.btrfs -q -f $DEV;;
    zfs) zpool create -f -O mountpoint=/mnt -O compression=lz4 pool $DEV && zpool export pool;; esac; }
check_fs() { case $1 in
    ext4) e2fsck -f -n $DEV > /tmp/fsck 2>&1;; xfs) xfs_repair -n $DEV > /tmp/fsck 2>&1;; btrfs) btrfs check --readonly $DEV > /tmp/fsck 2>&1;;
    zfs) { mount_fs zfs && zpool scrub -w pool && zpool status -v pool && unmount_fs zfs; } > /tmp/fsck 2>&1 &&
        grep -q 'with 0 errors' /tmp/fsck && grep -q 'No known data errors' /tmp/fsck;; esac ||
    { cat /tmp/fsck; return 1; }; }
mount_fs() { case $1 in zfs) zpool import -d /dev pool;; *) mount -t $1 $DEV /mnt;; esac; }
unmount_fs() { case $1 in zfs) zpool export pool;; *) umount /mnt;; esac; }
trim_fs() { case $1 in zfs) zpool trim -w pool;; *) fstrim -v /mnt;; esac; }
fill() { # half the data in one file, half in 16 KiB to 1 MiB files, three quarters random and one quarter compressible
    local half=$((MIB / 2)) n=0 left=$((MIB / 2 * 1024)) size
    dd if=/dev/urandom of=/mnt/big bs=1M count=$half 2>/dev/null
    mkdir -p /mnt/dir/sub
    while [ $left -gt 0 ]; do
        case $((n % 4)) in 0) size=16;; 1) size=48;; 2) size=208;; 3) size=1000;; esac
        if [ $((n % 4)) = 3 ]; then src=/dev/zero; else src=/dev/urandom; fi
        dd if=$src of=/mnt/dir/sub/f$n bs=${size}k count=1 2>/dev/null; n=$((n + 1)); left=$((left - size))
    done
    (cd /mnt && find . -type f | sort | xargs sha256sum) > /tmp/sums; say "  $(wc -l < /tmp/sums) files"; }
verify() { (cd /mnt && sha256sum -c /tmp/sums > /tmp/check 2>&1) || { grep -v ': OK' /tmp/check; return 1; }; }
E
if [ -n "${GUEST_SCRIPT:-}" ]; then cp "$GUEST_SCRIPT" "$work/run/setup/script"; else
cat > "$work/run/setup/script" <<'E'
say "kernel $(uname -r), export '$EXPORT', $CONNS connection(s)"
for fs in $FILESYSTEMS; do
    say "$fs: attach"; attach; describe
    make_fs $fs; mount_fs $fs
    a=$(now); fill; sync; say "$fs: wrote $MIB MiB: $(mb $a $(now) $MIB)"
    rm -f /mnt/dir/sub/f1 /mnt/dir/sub/f5; sed -i -e '/\/f1$/d' -e '/\/f5$/d' /tmp/sums
    sync; trim_fs $fs || say "$fs: no trim"
    unmount_fs $fs; detach
    attach; check_fs $fs; mount_fs $fs
    a=$(now); verify; say "$fs: verified: $(mb $a $(now) $MIB)"
    unmount_fs $fs; detach
    say "$fs: ok"
done
E
fi
chmod +x "$work/run/init"
# Not compressed: the emulator reads faster than it unpacks. The kernel wants it to begin at a multiple of four.
(cd "$work/run" && find . | cpio --quiet -o -H newc) > "$work/run.cpio"
{ cat "$base"; head -c $((-$(stat -c %s "$base") & 3)) /dev/zero; cat "$work/run.cpio"; } > "$work/initrd"

# --- boot
status=0
timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "${GUEST_SMP:-1}" -m "${GUEST_MEM:-1024}" \
    -nodefaults -display none -serial stdio -no-reboot \
    -netdev user,id=net0 -device virtio-net-pci,netdev=net0,romfile= -device virtio-rng-pci \
    -kernel "$root/boot/vmlinuz-$release" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on" < /dev/null | tee "$work/console" || status=$?
[ $status = 124 ] && echo "guest timed out after $limit s" >&2
grep -q '^\[[0-9.]*\] GUEST PASS' "$work/console"
