#!/bin/sh
# A Grid Engine of one host on loopback for tests: gridengine.sh ACTION CELL. Needs root.
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
host_is_there() { qstat -f | grep -q 'lx-amd64 *$'; }
change() { # SHOW-OPTION CHANGE-OPTION SED-WORDS...: edits a configuration of the master
    show=$1 option=$2
    shift 2
    as_admin "qconf $show" | sed "$@" >"$spool/edit/global"
    chown sgeadmin "$spool/edit/global"
    as_admin "qconf $option $spool/edit/global"
}
queue_file() {
    printf 'qname tests.q\nhostlist @tests\nslots %s\nqtype BATCH INTERACTIVE\nrerun FALSE\n' "$(nproc)"
    printf 'shell /bin/sh\nshell_start_mode posix_compliant\nnotify 00:00:05\ninitial_state default\n'
    printf 'seq_no 0\nnsuspend 1\nsuspend_interval 00:05:00\npriority 0\nmin_cpu_interval 00:05:00\nprocessors UNDEFINED\npe_list smp\n'
    printf 'tmpdir %s\n' "$spool/tmp"
    for name in load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method suspend_method resume_method \
        terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects calendar; do
        echo "$name NONE"
    done
    for name in rt cpu fsize data stack core rss vmem; do
        printf 's_%s INFINITY\nh_%s INFINITY\n' "$name" "$name"
    done
}

make_cell() {
    mkdir -p "$common" "$spool/qmaster/job_scripts" "$spool/execd" "$spool/db" "$spool/edit" "$spool/tmp"
    chmod 1777 "$spool/tmp"
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
        -e 's#^mailer.*#mailer /bin/true#' -e 's/^load_report_time.*/load_report_time 00:00:02/' \
        -e 's/^reporting_params  */&accounting_flush_time=00:00:00 /'
    change -ssconf -Msconf -e 's/^schedule_interval.*/schedule_interval 0:0:1/' -e 's/^flush_\([a-z]*\)_sec.*/flush_\1_sec 1/'
    {
        printf 'hostname %s\ncomplex_values gpu=2\n' "$host" # counted, not there
        for name in load_scaling user_lists xuser_lists projects xprojects usage_scaling report_variables; do
            echo "$name NONE"
        done
    } >"$spool/edit/host"
    # shellcheck disable=SC2016
    change -sc -Mc -e '$a gpu gpu INT <= YES YES 0 0'
    {
        printf 'pe_name smp\nslots 99\nuser_lists NONE\nxuser_lists NONE\nstart_proc_args NONE\nstop_proc_args NONE\n'
        # shellcheck disable=SC2016
        printf 'allocation_rule $pe_slots\ncontrol_slaves FALSE\njob_is_first_task TRUE\nurgency_slots min\n'
        printf 'accounting_summary FALSE\nqsort_args NONE\n'
    } >"$spool/edit/environment"
    printf 'group_name @tests\nhostlist %s\n' "$host" >"$spool/edit/group"
    queue_file >"$spool/edit/queue"
    as_admin "qconf -Ae $spool/edit/host" || true
    as_admin "qconf -Ap $spool/edit/environment"
    as_admin "qconf -Ahgrp $spool/edit/group"
    as_admin "qconf -Aq $spool/edit/queue"
}

tree() { # PID: it and its descendants
    echo "$1"
    for child in $(pgrep -P "$1"); do tree "$child"; done
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
        wait_for "the host does not report (see $spool)" host_is_there
        ;;
    down-master) # as when it crashes: after an orderly end the hosts would look for it only half a minute later
        kill -9 "$(cat "$spool/qmaster/qmaster.pid")"
        ;;
    up-master)
        sge_qmaster
        wait_for "the master does not answer" qstat
        # The host's daemon looks for its master every half minute only; its jobs do not need it meanwhile.
        kill -9 "$(cat "$spool"/execd/*/execd.pid)"
        sge_execd
        wait_for "the host does not report (see $spool)" host_is_there
        ;;
    down-node) # as when its power fails: the daemon and all that it has started are gone at once
        # shellcheck disable=SC2046
        kill -9 $(tree "$(cat "$spool"/execd/*/execd.pid)") 2>/dev/null || true # some end meanwhile
        ;;
    up-node)
        sge_execd
        wait_for "the host does not report (see $spool)" host_is_there
        ;;
    down)
        for pid_file in "$spool"/execd/*/execd.pid "$spool/qmaster/qmaster.pid"; do
            # shellcheck disable=SC2046
            [ ! -f "$pid_file" ] || kill -9 $(tree "$(cat "$pid_file")") 2>/dev/null || true # it would take its time
        done
        rm -rf "${SGE_ROOT:?}/$cell" "$spool"
        ;;
    *)
        echo "usage: $0 up|down|down-master|up-master|down-node|up-node CELL" >&2
        exit 2
        ;;
esac
