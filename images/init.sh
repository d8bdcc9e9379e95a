#!/bin/sh
# The guest's first process. It mounts what a small system needs, loads the modules it was asked for, and keeps the
# agent running. On the kernel command line:
#   netpoll.modules=a,b,c   modules to load before the agent starts
# Everything it says begins with "netpoll-init:", so that it can be told from the kernel on the console.

export PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb PYTHONPATH=/opt/netpoll-harness

say() { echo "netpoll-init: $*"; }

busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts -o gid=5,mode=620 devpts /dev/pts
busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
busybox mount -t tmpfs -o mode=755 tmpfs /run
busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
busybox mkdir -p /run/sshd /run/lock
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    [ -e "/dev/${link%%:*}" ] || busybox ln -s "${link#*:}" "/dev/${link%%:*}"
done

# Our own lines in /dev/kmsg are test messages: none may be dropped for being too many.
echo on > /proc/sys/kernel/printk_devkmsg
echo guest > /proc/sys/kernel/hostname

asked=
for word in $(cat /proc/cmdline); do
    case $word in netpoll.modules=*) asked=$(echo "${word#*=}" | busybox tr , ' ') ;; esac
done

# The channel to the host first, then what every guest gets. Absent in this kernel is no error: it may be built in.
modprobe -q -a virtio_pci virtio_console configfs qemu_fw_cfg
# One pvpanic, or a panic would be told twice: the PCI device (Linux 5.13), else the ISA one, whose driver had another name before.
modprobe -q -a pvpanic-pci
[ -d /sys/bus/pci/drivers/pvpanic-pci ] || modprobe -q -a pvpanic-mmio pvpanic
for module in $asked; do
    modprobe "$module" || say "module $module is not there"
done

busybox mount -t configfs configfs /sys/kernel/config || say "no configfs"
[ -d /sys/kernel/debug ] && busybox mount -t debugfs debugfs /sys/kernel/debug
[ -d /sys/kernel/tracing ] && busybox mount -t tracefs tracefs /sys/kernel/tracing
[ -d /sys/fs/pstore ] && busybox mount -t pstore pstore /sys/fs/pstore
ip link set lo up

say "up after $(busybox cut -d ' ' -f 1 /proc/uptime) s, Linux $(busybox uname -r), starting the agent"
while :; do
    python3 -S -P -m guest.agent < /dev/null
    say "the agent ended with status $?; starting it again"
    busybox sleep 1 # only so that an agent that cannot start does not flood the console
done
