#!/bin/bash
# Make the ZFS module and tools for the guest of guest-nbd.sh, which its kernel has no package for.
#
#   guest-zfs.sh FOLDER       then:  GUEST_ZFS=FOLDER guest-nbd.sh PORT EXPORT zfs
#
# Debian's contrib component gets a source of its own (contrib-for-guest.sources), the headers of the guest's kernel are
# installed, and zfs-dkms with its tools is unpacked, not installed, and built. Minutes, and once: the folder holds
# modules/*.ko, order (how they are loaded) and root/ (zpool, zfs and their libraries).
set -euo pipefail
out=${1:?FOLDER is missing}
mkdir -p "$out"; out=$(cd "$out" && pwd)
[ ! -e "$out/order" ] || { echo "is there already"; exit 0; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

if ! apt-cache show zfs-dkms > "$work/known" 2>&1; then
    sed 's/^Components:.*/Components: contrib/' /etc/apt/sources.list.d/debian.sources \
        > /etc/apt/sources.list.d/contrib-for-guest.sources
    apt-get update -qq
fi
kernel_package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
release=${kernel_package#linux-image-}
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    "linux-headers-$release" build-essential libelf-dev kmod > "$work/log" 2>&1 || { tail -5 "$work/log" >&2; exit 1; }
cd "$work"
apt-get download -qq zfs-dkms zfsutils-linux libnvpair3linux libuutil3linux libzfs4linux libzpool5linux 2> "$work/log"
for package in ./*.deb; do dpkg-deb -x "$package" tree; done
cd tree/usr/src/zfs-*/
{ ./configure --with-config=kernel --with-linux-obj="/usr/src/linux-headers-$release" \
      --with-linux="/usr/src/linux-headers-${release%-cloud-amd64}-common" && make -j"$(nproc)"; } > "$work/log" 2>&1 ||
    { tail -20 "$work/log" >&2; exit 1; }

mkdir -p "$out"/modules "$out"/root/bin
find module -name '*.ko' -exec cp {} "$out/modules/" \;
strip -g "$out"/modules/*.ko
export LD_LIBRARY_PATH=$work/tree/lib/x86_64-linux-gnu:$work/tree/usr/lib/x86_64-linux-gnu
for program in zpool zfs; do
    cp "$work/tree/sbin/$program" "$out/root/bin/"
    ldd "$work/tree/sbin/$program" | awk '/=> \// {print $3} /^\t\/lib64/ {print $1}' | while read -r library; do
        case $library in "$work"/*) to=/lib/x86_64-linux-gnu/$(basename "$library") ;; *) to=$library ;; esac
        mkdir -p "$out/root$(dirname "$to")"
        cp -Lu "$library" "$out/root$to"
    done
done
printf '%s.ko\n' spl znvpair zavl zcommon icp zlua zunicode zzstd zfs > "$out/order"
