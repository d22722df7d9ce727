#!/bin/sh
# A stand-in for systemd's systemctl: it keeps kubelet alone running, by the command line that kubeadm's package gives the unit.
# Other units are never there. What it leaves below /run goes with the machine.
state=/run/kubelet-unit

verb='' unit=''
for word; do
    case $word in
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$word; else unit=${word%.service}; fi ;;
    esac
done

# A process that has ended and is not buried yet has no program any more.
lives() {
    pid=$(cat "$state/$1" 2> /dev/null) && [ -e "/proc/$pid/exe" ]
}

end() {
    lives "$1" || return 0
    kill "-$2" "$pid"
    # As long as systemd waits, before it kills.
    tries=0
    while lives "$1" && [ $tries -lt 900 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    ! lives "$1" || kill -KILL "$pid"
}

start() {
    ! lives supervisor || return 0
    mkdir -p "$state"
    # Nothing of ours goes on in it: whoever has called us may wait for the end of a pipe.
    setsid "$0" keep kubelet < /dev/null >> /var/log/kubelet.log 2>&1 &
    echo $! > "$state/supervisor"
}

stop() {
    end supervisor KILL
    end program TERM
    rm -rf "$state"
}

keep() {
    while :; do
        KUBELET_KUBEADM_ARGS=''
        [ ! -e /var/lib/kubelet/kubeadm-flags.env ] || . /var/lib/kubelet/kubeadm-flags.env
        # The words of that variable are several.
        kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
            --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS &
        echo $! > "$state/program"
        wait $!
        sleep 1
    done
}

case $verb/$unit in
keep/kubelet) keep ;;
daemon-reload/*) ;;
start/kubelet) start ;;
stop/kubelet) stop ;;
restart/kubelet) stop && start ;;
is-active/kubelet)
    if lives supervisor; then echo active; else echo inactive && exit 3; fi
    ;;
status/kubelet) echo 'Loaded: loaded' && lives supervisor ;;
is-enabled/kubelet) [ -e /var/lib/kubelet-unit-enabled ] && echo enabled ;;
enable/kubelet) touch /var/lib/kubelet-unit-enabled ;;
disable/kubelet) rm -f /var/lib/kubelet-unit-enabled ;;
is-active/*) echo inactive && exit 3 ;;
*)
    echo "Unit $unit.service could not be found." >&2
    exit 4
    ;;
esac
