#!/bin/sh
# Makes the two RPMs from a program: packaging/rpm/build.sh PROGRAM FOLDER; prints their paths. Needs rpmbuild (Debian: apt-get
# install rpm). The manual, the completion and the sample of the settings are asked of the program itself.
set -eu
program=$(readlink -f "$1")
folder=$(mkdir -p "$2" && readlink -f "$2")
source=$(readlink -f "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
# Nothing in the packages tells when and where they were made: the same program gives the same bytes.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-315532800}" LC_ALL=C TZ=UTC
version=$("$program" version)
version=${version#ippd }

put() { # MODE FILE TARGET
    mkdir -p "$tree$(dirname "$3")"
    install -m "$1" "$2" "$tree$3"
}

common() { # what both packages hold
    put 755 "$program" /usr/bin/ippd
    "$program" config --sample | sed 's|^#file =.*|file = /var/log/ippd/ippd.log|; s|^#access =.*|access = /var/log/ippd/access.log|' >"$work/conf"
    put 600 "$work/conf" /etc/ippd/ippd.conf
    # logrotate 3.7 of CentOS 6 does not know "maxsize"; it neither knows "su" nor needs it.
    if [ "$dist" = el6 ]; then pattern='^ *(su|maxsize) |belongs to the daemon|Whenever rotation runs'; else pattern='^$'; fi
    grep -vE "$pattern" "$source/packaging/rpm/ippd.logrotate" >"$work/logrotate"
    put 644 "$work/logrotate" /etc/logrotate.d/ippd
    mkdir -p "$tree/var/lib/ippd" "$tree/var/log/ippd"
    for page in ippd.8 ippd.conf.5; do
        "$program" manual "$page" >"$work/$page"
        gzip -9n -f "$work/$page"
        put 644 "$work/$page.gz" "/usr/share/man/man${page##*.}/$page.gz"
    done
    "$program" manual completion >"$work/completion"
}

pack() { # SYSTEMD
    # Times of files and folders are those of the release, not of this run.
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    rpmbuild -bb --quiet --target x86_64-redhat-linux --dbpath "$work/db" \
        --define "_topdir $work/rpmbuild" --define "_rpmdir $folder" --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
        --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" --define "_binary_payload w9.gzdio" \
        --define "dist .$dist" --define "systemd $1" --define "ippd_version $version" --define "ippd_tree $tree" \
        "$source/packaging/rpm/ippd.spec" >&2
    printf '%s\n' "$folder/ippd-$version-1.$dist.x86_64.rpm"
}

dist=el6 tree=$work/el6
common
put 755 "$source/centos/ippd.init" /etc/rc.d/init.d/ippd
put 644 "$source/centos/ippd.sysconfig" /etc/sysconfig/ippd
put 644 "$work/completion" /etc/bash_completion.d/ippd
pack 0

dist=el7 tree=$work/el7
common
put 644 "$source/systemd/ippd.service" /usr/lib/systemd/system/ippd.service
put 644 "$source/systemd/ippd-worker@.service" /usr/lib/systemd/system/ippd-worker@.service
put 644 "$source/packaging/rpm/ippd.sysusers" /usr/lib/sysusers.d/ippd.conf
put 644 "$source/packaging/rpm/ippd.tmpfiles" /usr/lib/tmpfiles.d/ippd.conf
put 644 "$source/packaging/rpm/ippd.firewalld.xml" /usr/lib/firewalld/services/ippd.xml
put 644 "$work/completion" /usr/share/bash-completion/completions/ippd
pack 1
