"""The one table of settings: name, type, default and help; the sample file comes from it."""

from dataclasses import dataclass

from ippd.setting_types import (
    Type,
    between,
    between_seconds,
    boolean,
    choice,
    email,
    host,
    listens,
    local_listens,
    log_target,
    path,
    seconds,
    secret,
    server_url,
    size,
    socket_path,
    some_bytes,
    some_seconds,
    text,
    url,
    words,
)

COUNT = between(0)
SOME = between(1)


@dataclass(frozen=True)
class Setting:
    """One row: `live` ones change with SIGHUP, `env` is a variable of old that still works, `secret` is not shown."""

    name: str
    type: Type
    default: str
    help: str
    live: bool = False
    env: str | None = None
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable: IPPD_PUBLIC_LISTEN for public.listen."""
        return "IPPD_" + self.name.upper().replace(".", "_")


SETTINGS: tuple[Setting, ...] = (
    Setting("data.directory", path, "/var/lib/ippd", "Folder of the database, the secrets and the uploads."),
    Setting("data.uploads", path, "", "Folder of the uploaded files; empty: uploads in data.directory.",
            env="UPLOAD_FOLDER"),
    Setting("data.reserve", size, "64MB", "Size of a file that is given up when the disk is full, to keep working."),
    Setting("server.processes", between(0, 256), "0", "Serving processes; 0: one per core, at most 4."),
    Setting("server.threads", between(1, 1000), "2", "Threads of one process for short requests."),
    Setting("server.slow_threads", between(1, 10000), "64",
            "More threads of one process, for uploads and downloads; as many for log-ins, and for followed logs."),
    Setting("server.slow_threads_per_address", SOME, "24", "How many of those one address may have."),
    Setting("server.connections", SOME, "2000", "Open connections of one process."),
    Setting("server.connections_per_address", SOME, "200", "Open connections of one address to one process."),
    Setting("server.handshake_timeout", some_seconds, "10s", "Time for the TLS handshake."),
    Setting("server.head_timeout", some_seconds, "10s", "Time for the whole head of a request."),
    Setting("server.head_bytes", some_bytes, "32KB", "Size of the head of a request."),
    Setting("server.body_rate", size, "1KB", "Bytes per second that a body must at least bring, or is cut off."),
    Setting("server.body_grace", seconds, "20s", "Time before body_rate counts."),
    Setting("server.keepalive_timeout", seconds, "30s", "Time that an idle connection is kept open."),
    Setting("server.drain_timeout", seconds, "30s", "Time that running requests have to end when the daemon stops."),
    Setting("public.listen", listens, "0.0.0.0:8443", "Addresses with TLS for browsers, separated by blanks."),
    Setting("public.certificate", path, "", "Certificate chain (PEM); empty: one is made in data.directory.", True),
    Setting("public.key", path, "", "Private key of the certificate (PEM).", True),
    Setting("public.url", url, "", "Address of the portal as people reach it; links in mails begin with it.", True),
    Setting("public.frontend", path, "", "Folder of a built frontend, served at /; empty: none."),
    Setting("public.origins", words, "*", "Origins whose pages may call the portal (CORS); * means any.", True),
    Setting("local.listen", local_listens, "127.0.0.1:8080 [::1]:8080",
            "Loopback addresses without TLS for job scripts and the panel, separated by blanks."),
    Setting("local.socket", socket_path, "", "Unix socket for job scripts; empty: none."),
    Setting("local.allow", words, "",
            "Who may call local addresses besides root and the daemon: accounts, @groups; *: every account.", True),
    Setting("local.workers", words, "",
            "Who may do no more there than run what they have claimed: accounts (or @groups) in which programs for users run.", True),
    Setting("auth.token_lifetime", some_seconds, "24h", "Time that a login lasts.", True),
    Setting("auth.remember_lifetime", some_seconds, "30d", "Time that a login lasts with \"remember me\".", True),
    Setting("auth.reset_lifetime", some_seconds, "1h", "Time that the link of a password reset works.", True),
    Setting("auth.bcrypt_cost", between(4, 16), "12", "Cost of a password hash; one more takes twice as long."),
    Setting("auth.waiting_hashes", SOME, "32", "Logins that may wait for their hash in one process."),
    Setting("auth.lockout_failures", SOME, "10", "Wrong passwords after which an account is locked.", True),
    Setting("auth.lockout_time", some_seconds, "15m", "Time that an account stays locked.", True),
    Setting("auth.logins_per_minute", SOME, "60", "Logins that one address may try in a minute.", True),
    Setting("auth.signups_per_hour", SOME, "30", "Sign-ups that one address may try in an hour.", True),
    Setting("auth.resets_per_hour", SOME, "10", "Password resets that one address may ask for in an hour.", True),
    Setting("limits.files_per_experiment", COUNT, "2000", "Input files of one experiment.", True),
    Setting("limits.file_bytes", size, "50GB", "Size of one file.", True),
    Setting("limits.user_bytes", size, "500GB", "Size of all files of one user; each counts as 4 KB at least.", True),
    Setting("limits.waiting_experiments", COUNT, "1000",
            "Experiments of one user that are not handed out yet; those suspended meanwhile count as well.", True),
    Setting("limits.running_experiments", SOME, "10000", "Experiments of one user that are handed out and have not ended.", True),
    Setting("limits.running_together", SOME, "10000", "The same, of all members of one group together.", True),
    Setting("limits.kept_experiments", COUNT, "50000", "Experiments of one user, also those that ended and whose files have gone.", True),
    Setting("limits.log_bytes", size, "64MB", "Size of what one experiment may print while it runs.", True),
    Setting("limits.text_bytes", some_bytes, "64KB", "Size of one text field.", True),
    Setting("limits.form_bytes", some_bytes, "1MB", "Size of all text of one form.", True),
    Setting("limits.params_bytes", some_bytes, "64KB", "Size of all parameters of one experiment.", True),
    Setting("limits.fields", SOME, "3000", "Fields and files of one form.", True),
    Setting("queue.claim_timeout", some_seconds, "10m",
            "Time after which an unacknowledged claim goes back to the queue.", True),
    Setting("queue.batch", SOME, "100", "Experiments that one poll hands out at most.", True),
    Setting("queue.restarts", COUNT, "1", "Times that an experiment is begun again when its worker or node is lost.", True),
    Setting("apps.directory", path, "", "Folder of app definitions; empty: every app is accepted as it comes.", True),
    Setting("apps.allow_unknown", boolean, "no", "Whether apps without a definition are accepted as well: yes or no.", True),
    Setting("worker.url", server_url, "http://127.0.0.1:8080",
            "Local address of the daemon, as the worker reaches it; unix:/path is its local.socket."),
    Setting("worker.server_account", words, "ippd",
            "Who may answer at worker.url on this host besides root and the worker: the daemon's account, or that of a tunnel (ssh -L)."),
    Setting("worker.name", text, "", "Name of this worker, which must be its own; empty: host and engine."),
    Setting("worker.folder", path, "/var/lib/ippd-worker", "Folder of jobs, seen by the nodes under the same path."),
    Setting("worker.slots", between(1, 1000), "2", "Experiments that this worker has at a time (waiting in its engine or running)."),
    Setting("worker.hosts", words, "", "Values of `host` whose experiments this worker takes; empty: all."),
    Setting("worker.apps", words, "", "Apps that this worker takes; empty: all that have an Executable."),
    Setting("worker.interval", some_seconds, "5s", "Time between two looks at the daemon and the engine."),
    Setting("worker.lease", between_seconds(5, 86400), "10m", "Time after which the daemon gives up a worker that is silent."),
    Setting("worker.resources", text, "", "More words for the engine's submit command, for every job."),
    Setting("worker.cpus", text, "", "Words for an app that asks for more than one processor, as -pe smp {cpus}; empty: what Slurm takes."),
    Setting("worker.memory", text, "",
            "Words for an app with Memory; {memory} and {memory_per_cpu} are MB; empty: --mem (Slurm), h_vmem (Grid Engine)."),
    Setting("worker.gpus", text, "", "Words for an app with Gpus, as -l gpu={gpus}; empty: --gres=gpu (Slurm)."),
    Setting("worker.container", text, "apptainer exec --containall --bind {folder} --pwd {folder} {image}",
            "Command before the program of an app with a Container; {image}, {folder}, {uid} and {gid} are put in."),
    Setting("files.retention_days", between(0, 36500), "90",
            "Days that files are kept after their experiment ended; 0: for ever.", True),
    Setting("files.notice_days", between(0, 36500), "7", "Days before that when the owner is told.", True),
    Setting("backup.directory", path, "", "Folder of the backups that are made by the clock; empty: none are made.", True),
    Setting("backup.interval", some_seconds, "24h", "Time between two of them.", True),
    Setting("backup.keep", SOME, "7", "How many of them are kept.", True),
    Setting("update.key", text, "", "Public key of releases (ippd release key); empty: no release is taken.",
            True),
    Setting("update.directory", path, "",
            "Folder in which releases are looked for by their version; empty: releases in data.directory.", True),
    Setting("notify.admin_email", email, "", "Where new sign-ups are told by mail; empty: nowhere.", True,
            "ADMIN_EMAIL"),
    Setting("notify.admin_slack", url, "", "Slack webhook where new sign-ups are told; empty: nowhere.", True,
            "ADMIN_SLACK", secret=True),
    Setting("notify.slack_hosts", words, "hooks.slack.com", "Hosts that a user's Slack webhook may be on.", True),
    Setting("notify.interval", some_seconds, "5s", "Time between two looks into the outbox."),
    Setting("notify.give_up_after", some_seconds, "72h", "Time after which an unsent notification has failed.", True),
    Setting("mail.host", host, "", "SMTP server; empty: mail stays in the outbox.", True),
    Setting("mail.port", between(1, 65535), "25", "Port of the SMTP server: 25, 587 (starttls) or 465 (tls).", True),
    Setting("mail.security", choice("none", "starttls", "tls"), "none", "none, starttls or tls.", True),
    Setting("mail.username", text, "", "Account at the SMTP server; empty: no login.", True),
    Setting("mail.password", secret, "", "Password of that account.", True, secret=True),
    Setting("mail.from", email, "", "Sender of the mails.", True),
    Setting("mail.timeout", some_seconds, "20s", "Time that the SMTP server or webhook has for each answer.", True),
    Setting("log.file", path, "", "File of the application log; empty: standard error."),
    Setting("log.access", log_target, "", "File of the access log; empty: the same as log.file; none: no access log."),
    Setting("log.level", choice("debug", "info", "warning", "error"), "info",
            "The least that is logged: debug, info, warning or error.", True),
    Setting("certificate.warn_days", between(0, 36500), "21",
            "Days before the certificate ends when the administrator is told.", True),
)
BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


def sample() -> str:
    """A commented settings file with each setting at its default."""
    lines = ["# Settings of ippd. Each line that is switched off shows the default.",
             "# A comment needs its own line. Sizes: 64KB, 5GB. Times: 10s, 5m, 24h, 7d.",
             "# The environment (IPPD_PUBLIC_LISTEN for listen in [public]) and --set are stronger than this file."]
    section = ""
    for row in SETTINGS:
        first, _, rest = row.name.partition(".")
        if first != section:
            lines += ["", f"[{first}]"]
            section = first
        lines += [f"# {row.help}", f"#{rest} = {row.default}".rstrip()]
    return "\n".join(lines) + "\n"
