"""What polls and lists cost when there are more and more experiments that nobody asks for."""

import sqlite3
from urllib.parse import urlencode

import wrk
from stage import Row

OTHER = "other@bench.example"
STEPS = (100, 1_000, 10_000, 100_000)


def fill(stage, owner, count):
    """Bring the ended experiments of `owner` up to `count`, as copies of the first one of the store with its file."""
    database = sqlite3.connect(stage.daemon.data / "ippd.sqlite", timeout=30)
    with database:
        there = database.execute("SELECT count(*) FROM experiments WHERE user_id = ?", (owner,)).fetchone()[0]
        begin = database.execute("SELECT max(id) FROM experiments").fetchone()[0]
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count - there})"
        own = {"id": f"{begin} + i", "uuid": "lower(hex(randomblob(16)))", "user_id": str(owner), "status": "'completed'"}
        copy(database, "experiments", own | {"ended_at": "submitted_at"}, "id = 1", numbers)
        path = f"path || '-' || ({own['id']})"
        file = {"id": "NULL", "uuid": own["uuid"], "user_id": str(owner), "experiment_id": own["id"], "path": path}
        copy(database, "files", file, "experiment_id = 1", numbers)
    database.close()


def copy(database, table, changed, where, numbers):
    """Insert one copy of a row per number, with some columns computed."""
    columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, name) for name in columns)
    database.execute(f"INSERT INTO {table} ({', '.join(columns)}) {numbers} SELECT {values} FROM {table}, n WHERE {where}")


def growth(stage):
    """Milliseconds of one request after the other, as the store fills with a stranger's ended experiments."""
    stage.submit(100)
    stage.add_user(OTHER)
    mine, other = urlencode({"token": stage.token}), urlencode({"token": stage.log_in(OTHER)})
    wrk.run(f"{stage.local}/experiments/queue", 1, 1)  # takes all that waits
    urls = {
        "poll of an idle queue": f"{stage.local}/experiments/queue",
        "own list of 100": f"{stage.public}/experiments?{mine}",
        "one own experiment": f"{stage.public}/experiments/1?{mine}",
        "first 20 of all of them": f"{stage.public}/experiments?{other}&limit=20",
        "those of them that wait": f"{stage.public}/experiments?{other}&status=submitted",
    }
    times = {what: [] for what in urls}
    for count in STEPS:
        fill(stage, 2, count)
        for what, url in urls.items():
            times[what].append(min(wrk.run(url, 1, max(1, stage.seconds // 2)).p50 for _ in range(2)))
    rows = []
    for what, found in times.items():
        figures = ", ".join(f"{count:,}: {time:.2f} ms" for count, time in zip(STEPS, found, strict=True))
        grown = found[-1] / found[0]
        last, first = (f"{found[end]:.2f} ms" for end in (-1, 0))
        rows.append(Row(f"{what}, with others ({figures})", last, first, f"{grown:.2f}x", "<= 1.5x", grown <= 1.5))
    return rows
