#!/bin/sh
# A Grid Engine of one host on loopback for tests: gridengine.sh up|down|down-master|up-master CELL. Needs root.
#   apt-get install --no-install-recommends gridengine-master gridengine-exec gridengine-client
# The environment of its commands: SGE_ROOT and SGE_CELL as below; SGE_QMASTER_PORT and SGE_EXECD_PORT must be set.
set -eu
action=$1 cell=$2
SGE_ROOT=/var/lib/gridengine SGE_CELL=$cell
: "${SGE_QMASTER_PORT:?}" "${SGE_EXECD_PORT:?}"
export SGE_ROOT SGE_CELL SGE_QMASTER_PORT SGE_EXECD_PORT
host=$(hostname -s)
common=$SGE_ROOT/$cell/common
spool=/var/spool/gridengine-$cell

as_admin() { # COMMAND as the administrator of the cell
    su -s /bin/sh -c "SGE_ROOT=$SGE_ROOT SGE_CELL=$cell SGE_QMASTER_PORT=$SGE_QMASTER_PORT SGE_EXECD_PORT=$SGE_EXECD_PORT $1" sgeadmin
}
wait_for() { # SENTENCE COMMAND...: at most 40 s
    sentence=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 160 ] || { echo "gridengine.sh: $sentence" >&2; exit 1; }
        sleep 0.25
    done
}
change() { # SHOW-OPTION CHANGE-OPTION SED-WORDS...: edits a configuration of the master
    show=$1 option=$2
    shift 2
    as_admin "qconf $show" | sed "$@" >"$spool/edit/global"
    chown sgeadmin "$spool/edit/global"
    as_admin "qconf $option $spool/edit/global"
}
queue_file() {
    printf 'qname tests.q\nhostlist @tests\nslots %s\nqtype BATCH INTERACTIVE\nrerun FALSE\n' "$(nproc)"
    printf 'shell /bin/sh\nshell_start_mode posix_compliant\ntmpdir /tmp\nnotify 00:00:05\ninitial_state default\n'
    printf 'seq_no 0\nnsuspend 1\nsuspend_interval 00:05:00\npriority 0\nmin_cpu_interval 00:05:00\nprocessors UNDEFINED\n'
    for name in load_thresholds suspend_thresholds ckpt_list pe_list prolog epilog starter_method suspend_method resume_method \
        terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects calendar; do
        echo "$name NONE"
    done
    for name in rt cpu fsize data stack core rss vmem; do
        printf 's_%s INFINITY\nh_%s INFINITY\n' "$name" "$name"
    done
}

make_cell() {
    mkdir -p "$common" "$spool/qmaster/job_scripts" "$spool/execd" "$spool/db" "$spool/edit"
    cat >"$common/bootstrap" <<END
admin_user sgeadmin
default_domain none
ignore_fqdn true
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params $spool/db
binary_path /usr/sbin
qmaster_spool_dir $spool/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
END
    echo "$host" >"$common/act_qmaster"
    echo "$host localhost" >"$common/host_aliases"
    chown -R sgeadmin:sgeadmin "$SGE_ROOT/$cell" "$spool"
    as_admin "/usr/share/gridengine/scripts/init_cluster $SGE_ROOT $cell $spool/db sgeadmin"
}

configure_cell() {
    as_admin "qconf -ah $host" || true
    as_admin "qconf -as $host" || true
    as_admin "qconf -am root" || true
    change "-sconf global" -Mconf -e "s#^execd_spool_dir.*#execd_spool_dir $spool/execd#" -e 's/^min_\([ug]\)id.*/min_\1id 0/' \
        -e 's#^mailer.*#mailer /bin/true#' -e 's/^load_report_time.*/load_report_time 00:00:02/'
    change -ssconf -Msconf -e 's/^schedule_interval.*/schedule_interval 0:0:1/' -e 's/^flush_\([a-z]*\)_sec.*/flush_\1_sec 1/'
    {
        echo "hostname $host"
        for name in load_scaling complex_values user_lists xuser_lists projects xprojects usage_scaling report_variables; do
            echo "$name NONE"
        done
    } >"$spool/edit/host"
    printf 'group_name @tests\nhostlist %s\n' "$host" >"$spool/edit/group"
    queue_file >"$spool/edit/queue"
    as_admin "qconf -Ae $spool/edit/host" || true
    as_admin "qconf -Ahgrp $spool/edit/group"
    as_admin "qconf -Aq $spool/edit/queue"
}

end() { # PID-FILE: ends a daemon and waits for it
    [ -f "$1" ] || return 0
    pid=$(cat "$1")
    kill "$pid" 2>/dev/null || return 0
    wait_for "the process $pid does not end" sh -c "! kill -0 $pid"
}

case $action in
    up)
        mkdir -p /var/run/gridengine
        chown sgeadmin:sgeadmin /var/run/gridengine
        new=
        [ -f "$common/bootstrap" ] || { make_cell; new=yes; }
        sge_qmaster
        wait_for "the master does not answer" as_admin "qconf -sh"
        [ -z "$new" ] || configure_cell
        sge_execd
        wait_for "the host does not report (see $spool)" sh -c "qstat -f | grep -q 'lx-amd64 *$'"
        ;;
    down-master)
        end "$spool/qmaster/qmaster.pid"
        ;;
    up-master)
        sge_qmaster
        wait_for "the master does not answer" qstat
        ;;
    down)
        for pid_file in "$spool"/execd/*/execd.pid; do end "$pid_file"; done
        end "$spool/qmaster/qmaster.pid"
        rm -rf "$SGE_ROOT/$cell" "$spool"
        ;;
    *)
        echo "usage: $0 up|down|down-master|up-master CELL" >&2
        exit 2
        ;;
esac
