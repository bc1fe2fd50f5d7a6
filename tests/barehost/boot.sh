# The first process of a host, until it is systemd: sh -ec boot.sh sh ROOT NAME [FROM TO ro|rw]...
# It is in namespaces of its own, of cgroups not yet.
root=$1 name=$2
shift 2

for controller in /sys/fs/cgroup/*/; do
	[ -e "$controller/tasks" ] || continue # only version 1 has it
	own=$controller$name
	mkdir "$own"
	for what in cpus mems; do
		[ ! -e "$own/cpuset.$what" ] || cat "$controller/cpuset.$what" >"$own/cpuset.$what"
	done
	echo 0 >"$own/cgroup.procs"
done

mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind /proc/sys/net proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

# Nodes of its own, since journald makes links there. Loop devices appear in the
# machine's /dev only.
mount -t tmpfs -o mode=755 tmpfs dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/fuse /dev/loop-control dev
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
i=0
while [ $i -lt 64 ]; do
	mknod -m 660 dev/loop$i b 7 $i
	i=$((i + 1))
done

while [ $# -gt 0 ]; do
	if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; touch "$root$2"; fi
	mount --bind "$1" "$root$2"
	[ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
	shift 3
done

exec unshare --cgroup sh -ec '
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
for controller in /sys/fs/cgroup/*/; do
	[ -e "$controller/tasks" ] || continue
	what=$(basename "$controller")
	mkdir "sys/fs/cgroup/$what"
	case $what in systemd) what=none,name=systemd ;; esac
	mount -t cgroup -o "$what" cgroup "sys/fs/cgroup/$(basename "$controller")"
done
hostname "$0"
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
# As systemd does where it does not find itself in a container.
mount --make-rshared /
exec env -i container=barehost /lib/systemd/systemd
' "$name"
