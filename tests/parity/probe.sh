#!/bin/sh
# Prints what a program can observe of the container it runs in, section by section; then stays, so
# that it can be looked at from outside. It is the entry point of the image that dockerd and ecsd both
# run; busybox is all it needs.
PATH=/bin
trap 'exit 0' TERM
own=/proc/$$
descriptors=$(for fd in 0 1 2; do echo "$fd $(readlink $own/fd/$fd)"; done)
# Where there is no log.
[ -d /out ] && exec >/out/seen

section() { echo "== $1"; }
lines() { tr '\0' '\n' <"$1"; }
# Path, mode, owner, device number, and where a link leads.
nodes() {
  find "$1" $2 -exec stat -c '%n %A %u:%g %t:%T %N' {} + 2>/dev/null |
    sed "s/ '[^']*' -> / -> /; s|^\([^ ]*\) \(.*\) \1\$|\1 \2|"
}

section arguments
lines $own/cmdline
section "first process"
lines /proc/1/cmdline
section environment
lines $own/environ
section directory
readlink $own/cwd
section status
grep -E '^(Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp|SigBlk|SigIgn|Cpus_allowed_list|Mems_allowed_list|NStgid):' $own/status
section limits
sed 1d $own/limits
section process
echo "oom_score_adj $(cat $own/oom_score_adj)"
# After the name: state, parent, group, session, terminal, its foreground group; priority, nice; policy.
set -- $(sed 's/.*) //' $own/stat)
echo "parent $2 group $3 session $4 terminal $5 foreground $6 priority ${16} nice ${17} policy ${39}"
echo "personality $(cat $own/personality 2>/dev/null)"
echo "confinement $(cat $own/attr/current 2>/dev/null)"
section descriptors
echo "$descriptors"
section input
timeout 1 head -c 1 >/dev/null 2>&1
[ $? = 143 ] && echo open || echo ended
section namespaces
for kind in cgroup ipc mnt net pid user uts; do echo "$kind $(readlink $own/ns/$kind)"; done
section names
echo "host $(hostname)"
echo "domain $(cat /proc/sys/kernel/domainname)"
section hosts
cat /etc/hosts
section resolvers
cat /etc/resolv.conf
section hostname
cat /etc/hostname
section mounts
cat $own/mountinfo
section devices
nodes /dev
section files
nodes / -xdev
section cgroup
cat $own/cgroup
for file in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.memsw.limit_in_bytes \
  memory/memory.swappiness memory/memory.oom_control cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us \
  cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max blkio/blkio.bfq.weight blkio/blkio.weight devices/devices.list \
  memory.max memory.low memory.swap.max cpu.weight cpu.max cpuset.cpus cpuset.mems pids.max io.weight io.bfq.weight; do
  [ -f /sys/fs/cgroup/$file ] && sed "s|^|$file: |" /sys/fs/cgroup/$file | grep -v under_oom
done
section links
ip -o link
section addresses
ip -o addr
section routes
ip route
section parameters
# One program for hundreds of files.
grep -sH '' $(find /proc/sys/net/core /proc/sys/net/ipv4 /proc/sys/net/ipv6 /proc/sys/fs/mqueue -type f 2>/dev/null) \
  /proc/sys/kernel/shm* /proc/sys/kernel/msg* /proc/sys/kernel/sem | sort
section end
sleep 600 &
wait
