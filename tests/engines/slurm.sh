#!/bin/sh
# A Slurm of one node on loopback for tests: slurm.sh up|down|restart-controller|purge FOLDER. Needs root; everything lies in FOLDER.
#   apt-get install --no-install-recommends munge slurmctld slurmd slurm-client
set -eu
action=$1 folder=$2
host=$(hostname -s)
SLURM_CONF=$folder/slurm.conf
export SLURM_CONF

wait_for() { # SENTENCE COMMAND...: at most 30 s
    sentence=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || { echo "slurm.sh: $sentence" >&2; exit 1; }
        sleep 0.25
    done
}
node_idle() { sinfo --noheader --format=%T | grep -Eq 'idle|mixed|allocated'; }

configure() {
    mkdir -p "$folder/state" "$folder/spool" "$folder/log"
    port=$((12000 + 2 * ($$ % 5000))) # so that two of them do not meet
    cat >"$SLURM_CONF" <<END
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
MessageTimeout=3
MinJobAge=60
MailProg=/bin/true
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0,defer
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) State=UNKNOWN
PartitionName=tests Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
}

munge_up() {
    munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return
    mkdir -p /run/munge
    chown munge:munge /run/munge
    chmod 755 /run/munge
    runuser -u munge -- /usr/sbin/munged --force
    wait_for "munged does not answer" sh -c 'munge -n | unmunge'
}

case $action in
    up)
        munge_up
        [ -f "$SLURM_CONF" ] || configure
        slurmctld -f "$SLURM_CONF"
        slurmd -f "$SLURM_CONF" -N "$host"
        wait_for "the node does not come up (see $folder/log)" node_idle
        ;;
    down-controller)
        kill "$(cat "$folder/slurmctld.pid")"
        wait_for "slurmctld does not end" sh -c "! kill -0 $(cat "$folder/slurmctld.pid")"
        ;;
    up-controller)
        slurmctld -f "$SLURM_CONF"
        wait_for "the node does not come back" node_idle
        ;;
    down)
        for pid in "$folder/slurmctld.pid" "$folder/slurmd.pid"; do
            [ ! -f "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
        done
        ;;
    *)
        echo "usage: $0 up|down|down-controller|up-controller FOLDER" >&2
        exit 2
        ;;
esac
