#!/bin/sh
# A Slurm of one node on loopback for tests: slurm.sh ACTION FOLDER. Needs root; everything lies in FOLDER.
#   apt-get install --no-install-recommends munge slurmctld slurmd slurm-client
# up-accounting brings slurmdbd over a database of its own as well, so that sacct answers, and a controller that forgets soon:
#   apt-get install --no-install-recommends mariadb-server slurmdbd
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
tree() { # PID: it and its descendants
    echo "$1"
    for child in $(pgrep -P "$1"); do tree "$child"; done
}
node_idle() { sinfo --noheader --format=%T | grep -Eq 'idle|mixed|allocated'; }

configure() { # with FOLDER/slurmdbd.conf: with accounting
    books="AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=60"
    [ ! -f "$folder/slurmdbd.conf" ] || books="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((port + 2))
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MinJobAge=2"
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
$books
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
MessageTimeout=3
MailProg=/bin/true
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0,defer
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) Gres=gpu:2 State=UNKNOWN
PartitionName=tests Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    printf 'Name=gpu File=/dev/%s\n' null zero >"$folder/gres.conf" # counted, not there
}

books_up() {
    mkdir -p "$folder/data"
    # Without tables of rights, so that there is nothing to install; it listens on loopback only.
    mariadbd --no-defaults --user=root --datadir="$folder/data" --socket="$folder/mariadb.sock" --port=$((port + 3)) \
        --bind-address=127.0.0.1 --pid-file="$folder/mariadb.pid" --skip-grant-tables --innodb-buffer-pool-size=16M \
        --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 \
        >"$folder/log/mariadb.log" 2>&1 &
    wait_for "the database does not come up (see $folder/log)" \
        mariadb --no-defaults --socket="$folder/mariadb.sock" --execute "CREATE DATABASE slurm_acct_db"
    cat >"$folder/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=localhost
DbdPort=$((port + 2))
SlurmUser=root
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((port + 3))
StorageUser=slurm
StorageLoc=slurm_acct_db
END
    chmod 600 "$folder/slurmdbd.conf"
}

munge_up() {
    munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return
    mkdir -p /run/munge
    chown munge:munge /run/munge
    chmod 755 /run/munge
    runuser -u munge -- /usr/sbin/munged --force
    wait_for "munged does not answer" sh -c 'munge -n | unmunge'
}

port=$((12000 + 4 * ($$ % 2500))) # so that two of them do not meet
mkdir -p "$folder/state" "$folder/spool" "$folder/log"

case $action in
    up | up-accounting)
        munge_up
        [ "$action" = up ] || books_up
        [ -f "$SLURM_CONF" ] || configure
        if [ "$action" = up-accounting ]; then
            slurmdbd
            wait_for "slurmdbd does not answer (see $folder/log)" sacctmgr --immediate show cluster
            sacctmgr --immediate add cluster tests >/dev/null
        fi
        slurmctld -f "$SLURM_CONF"
        slurmd -f "$SLURM_CONF" -N "$host"
        wait_for "the node does not come up (see $folder/log)" node_idle
        ;;
    down-controller)
        kill "$(cat "$folder/slurmctld.pid")"
        wait_for "slurmctld does not end" sh -c "! kill -0 $(cat "$folder/slurmctld.pid")"
        ;;
    down-node) # as when its power fails: slurmd and all that it has started are gone at once
        # shellcheck disable=SC2046
        kill -9 $(for pid in $(find /proc/[0-9]*/fd -lname "$folder/log/slurmd.log" 2>/dev/null | cut -d / -f 3); do tree "$pid"; done) \
            2>/dev/null || true # some end meanwhile
        scontrol update "nodename=$host" state=down reason=test
        ;;
    up-node)
        slurmd -f "$SLURM_CONF" -N "$host"
        scontrol update "nodename=$host" state=resume || true
        wait_for "the node does not come back" node_idle
        ;;
    up-controller)
        slurmctld -f "$SLURM_CONF"
        wait_for "the node does not come back" node_idle
        ;;
    down)
        for name in slurmctld slurmd slurmdbd mariadb; do
            # At once: what ends in order writes into the folder that the caller removes now.
            # shellcheck disable=SC2046
            [ ! -f "$folder/$name.pid" ] || kill -9 $(tree "$(cat "$folder/$name.pid")") 2>/dev/null || true
        done
        ;;
    *)
        echo "usage: $0 up|up-accounting|down|down-controller|up-controller|down-node|up-node FOLDER" >&2
        exit 2
        ;;
esac
