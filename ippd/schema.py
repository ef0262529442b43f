"""The tables of the store, once: what the column check, the first migration and the documentation are made from."""

from typing import Any

# A column is "type[!][ reference]": "!" means NOT NULL, "-> table" a foreign key that goes with its parent. "key" is an integer that
# is never given out twice. Times are seconds since 1970 (UTC) as real numbers; json columns hold JSON text.
TABLES: dict[str, dict[str, str]] = {
    "users": {
        "id": "key",
        "uuid": "text!",
        "email": "text!",
        "password": "text!",
        "status": "text!",
        "settings": "json!",
        "created_at": "time!",
        "decided_at": "time",
    },
    "sessions": {
        "id": "text!",
        "user_id": "int! -> users",
        "created_at": "time!",
        "expires_at": "time!",
        "address": "text",
    },
    "resets": {
        "id": "key",
        "user_id": "int! -> users",
        "digest": "text!",
        "expires_at": "time!",
    },
    "attempts": {"key": "text!", "started_at": "time!", "count": "int!"},
    "groups": {"id": "key", "name": "text!"},
    "members": {"group_id": "int! -> groups", "user_id": "int! -> users"},
    "limits": {"group_id": "int! -> groups", "name": "text!", "value": "int!"},
    "experiments": {
        "id": "key",
        "uuid": "text!",
        "user_id": "int! -> users",
        "app": "text!",
        "name": "text!",
        "description": "text!",
        "label": "text",
        "host": "text!",
        "status": "text!",
        "priority": "int!",
        "spec": "json!",
        "exit_code": "int",
        "message": "text",
        "usage": "json",
        "claimed_by": "text",
        "claim": "text",
        "lease": "time",
        "wanted": "text",
        "restarts": "int!",
        "acknowledged_at": "time",
        "heartbeat_at": "time",
        "created_at": "time!",
        "submitted_at": "time!",
        "queued_at": "time",
        "running_at": "time",
        "suspended_at": "time",
        "ended_at": "time",
        "stopped_at": "time",
        "noticed_at": "time",
        "expired_at": "time",
    },
    "parents": {"experiment_id": "int! -> experiments", "parent_id": "int! -> experiments"},
    "files": {
        "id": "key",
        "uuid": "text!",
        "user_id": "int! -> users",
        "experiment_id": "int! -> experiments",
        "kind": "text!",
        "field": "text!",
        "name": "text!",
        "path": "text!",
        "bytes": "int!",
        "sha256": "text!",
        "created_at": "time!",
    },
    "outbox": {
        "id": "key",
        "kind": "text!",
        "user_id": "int -> users",
        "channel": "text!",
        "recipient": "text!",
        "subject": "text!",
        "body": "text!",
        "status": "text!",
        "attempts": "int!",
        "next_attempt_at": "time!",
        "error": "text",
        "created_at": "time!",
        "sent_at": "time",
        "unique_key": "text",
    },
    "meta": {"name": "text!", "value": "text!"},
}

# (table, columns, unique): every query of the domain has its index, so that nothing grows with rows that are not asked for.
INDEXES: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("users", ("email",), True),
    ("users", ("uuid",), True),
    ("users", ("status",), False),
    ("sessions", ("id",), True),
    ("sessions", ("user_id",), False),
    ("sessions", ("expires_at",), False),
    ("resets", ("digest",), True),
    ("resets", ("user_id",), False),
    ("attempts", ("key",), True),
    ("attempts", ("started_at",), False),
    ("groups", ("name",), True),
    ("members", ("group_id", "user_id"), True),
    ("members", ("user_id",), False),
    ("limits", ("group_id", "name"), True),
    ("experiments", ("uuid",), True),
    ("experiments", ("user_id", "id"), False),
    ("experiments", ("user_id", "status"), False),
    ("experiments", ("status", "priority DESC", "id"), False),
    ("experiments", ("expired_at", "ended_at"), False),
    ("parents", ("experiment_id", "parent_id"), True),
    ("parents", ("parent_id",), False),
    ("files", ("experiment_id", "kind", "name"), True),
    ("files", ("path",), True),
    ("files", ("user_id", "bytes"), False),
    ("files", ("created_at",), False),
    ("outbox", ("status", "channel", "next_attempt_at"), False),
    ("outbox", ("unique_key",), True),
    ("outbox", ("user_id",), False),
    ("meta", ("name",), True),
)


def first(op: Any) -> None:
    """Version 1: all tables as of the first release (a later change to TABLES comes with a migration of its own below)."""
    for table, columns in TABLES.items():
        op.create_table(table, columns)
    for table, names, unique in INDEXES:
        op.create_index(table, names, unique)


# The schema version of a database is the number of these that it has seen.
MIGRATIONS = (first,)
