# The first process of a node, in two steps: `init.sh outside FOLDER CGROUP`, then `init.sh inside FOLDER`.
#
# FOLDER keeps what a machine keeps when it is switched off: etc, opt, log, lib. All else is in memory and goes with the
# namespaces. Nothing is made outside FOLDER but the control groups, which the node's owner removes.
set -eu
folder=$2
controllers='blkio cpu cpuacct cpuset devices freezer hugetlb memory net_cls net_prio perf_event pids systemd'

outside() {
    # A cgroup namespace begins at the group that its first process is in.
    for controller in $controllers; do
        root=/sys/fs/cgroup/$controller
        [ -d "$root" ] || continue
        mkdir -p "$root/$1"
        if [ "$controller" = cpuset ]; then
            cat "$root/cpuset.cpus" > "$root/$1/cpuset.cpus"
            cat "$root/cpuset.mems" > "$root/$1/cpuset.mems"
        fi
        echo $$ > "$root/$1/cgroup.procs"
    done
    exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh "$0" inside "$folder"
}

# A folder of the machine's own in the place of the host's.
own() {
    mkdir -p "$folder/$1" "$2"
    mount --bind "$folder/$1" "$2"
}

# The host's folder with the machine's own changes over it.
overlay() {
    mkdir -p "$folder/$1" "$folder/$1.work"
    mount -t overlay -o "lowerdir=/$1,upperdir=$folder/$1,workdir=$folder/$1.work" overlay "/$1"
}

inside() {
    mount --make-rprivate /
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in $controllers; do
        mkdir "/sys/fs/cgroup/$controller"
        option=$controller
        [ "$controller" != systemd ] || option=none,name=systemd
        # What the kernel does not have: kubelet does without.
        mount -t cgroup -o "$option" cgroup "/sys/fs/cgroup/$controller" 2> /dev/null || rmdir "/sys/fs/cgroup/$controller"
    done
    mount -t tmpfs -o mode=755 tmpfs /run
    # The programs of the host, and what is written here goes into the folder.
    overlay etc
    overlay opt
    overlay usr
    own log /var/log
    # containerd's file system cannot be an overlay over an overlay, so this is the folder itself.
    own lib /var/lib
    # kubelet wants these set, and they are the whole machine's.
    for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
        kernel/keys/root_maxbytes; do
        stand_in=$folder/sysctl/$setting
        mkdir -p "${stand_in%/*}"
        cat "/proc/sys/$setting" > "$stand_in"
        mount --bind "$stand_in" "/proc/sys/$setting"
    done
    hostname "$(cat "$folder/hostname")"
    mount --make-rshared /
    touch "$folder/up"
    # sh reaps whoever has lost his parent when its own child ends.
    while :; do sleep 1; done
}

case $1 in
outside) outside "$3" ;;
inside) inside ;;
esac
