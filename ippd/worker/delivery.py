"""What the daemon is told of a job and gets of it: its output while it runs, and at its end results, or why there are none."""

import json
from logging import getLogger
from typing import Any

from ippd.calls import Refused, Server, Unreadable, Upload
from ippd.runners import files
from ippd.worker import outputs
from ippd.worker.journal import STOPPING, Entry

PIECE = 1 << 20  # bytes of output that one step sends at most
STREAMS = ("stdout", "stderr")
OVER = (404, 409)  # the experiment is not ours any more
FULL = 507
NO_LOG = (*OVER, 413)  # bytes that are missing before these, or too many; a claim that is over is told again by what is said next
FULL_TRIES = 20  # rounds in which the daemon may have no space
FOR_EVER = (400, 413, 422, FULL)  # what will be refused again
log = getLogger("ippd.worker")


def send_output(server: Server, entry: Entry) -> None:
    """Send what the program has printed since the last time, a piece of each stream at most."""
    for stream in STREAMS:
        _send_piece(server, entry, stream)


def _send_piece(server: Server, entry: Entry, stream: str) -> bool:
    path, sent = entry.path(f"{stream}.txt"), entry.sent.get(stream, 0)
    if files.size(path) <= sent:
        return False
    with files.opened(path) as file:
        file.seek(sent)
        piece = file.read(PIECE)
    fields = [("claim", entry.claim), ("stream", stream), ("offset", str(sent))]
    server.post_form(f"/experiments/{entry.id}/log", fields, [Upload("text", stream, path, piece)])
    entry.sent[stream] = sent + len(piece)
    entry.keep()
    return True


def _send_rest(server: Server, entry: Entry) -> None:
    """Send all that is left of the output. Results do not depend on it: what is refused for good ends the live log, and nothing else."""
    for stream in STREAMS:
        try:
            while _send_piece(server, entry, stream):
                pass
        except Refused as refused:
            if refused.status not in NO_LOG:
                raise
            log.warning("experiment %d: its %s is not sent to its end: %s", entry.id, stream, refused)


def deliver(server: Server, entry: Entry) -> bool:
    """Tell how an experiment ended, with its results, and forget it; returns whether there is something else to tell at once.

    An experiment that is over for the daemon is ended like one that it has ordered to be.
    Results that will never arrive make it fail with the reason. Raises Unavailable and Refused for what a later round may mend.
    """
    try:
        _tell(server, entry)
    except Refused as refused:
        if refused.status == FULL and entry.tries < FULL_TRIES:
            entry.tries += 1
            entry.keep()
            raise
        if refused.status in FOR_EVER:
            return _refused(entry, str(refused))
        if refused.status not in OVER:
            raise
        log.info("experiment %d: %s", entry.id, refused)
        entry.step, entry.outcome = STOPPING, {"kind": "ordered", "order": "over"}  # cancelled, or lost: the next orders say which
        entry.keep()
        return False
    except Unreadable as error:
        return _refused(entry, str(error))
    except OSError as error:
        return _refused(entry, f"a file cannot be read: {error.strerror or error}")
    log.info("experiment %d: %s", entry.id, entry.outcome.get("message") or entry.outcome["kind"])
    entry.forget()
    return False


def _tell(server: Server, entry: Entry) -> None:
    outcome, where = entry.outcome, f"/experiments/{entry.id}"
    used = json.dumps(outcome["usage"])
    if not outcome.get("refused"):
        _send_rest(server, entry)
    if outcome["kind"] == "completed":
        found = outputs.results(entry)
        if found:
            server.post_form(f"{where}/results", [("claim", entry.claim), ("exit_code", "0"), ("usage", used)], found)
            return
        outcome = entry.outcome = outcome | {"kind": "failed", "exit_code": 0, "message": "the app made no results"}
    if outcome["kind"] == "lost":
        server.post(f"{where}/returned", claim=entry.claim, message=outcome["message"])
    else:
        told = {"exit_code": outcome["exit_code"], "message": outcome["message"], "usage": used}
        server.post(f"{where}/failed", claim=entry.claim, **told)


def _refused(entry: Entry, why: str) -> bool:
    """Once: tell that instead, without the output; twice: without what was measured, too; then there is nothing left to be told."""
    told, times = entry.outcome, entry.outcome.get("refused", 0) + 1
    log.error("experiment %d: what the job left cannot be delivered: %s", entry.id, why)
    if times > 2:
        entry.forget()  # its lease runs out
        return False
    known: dict[str, Any] = {"exit_code": told.get("exit_code"), "message": told.get("message"), "usage": told["usage"]}
    if told["kind"] == "completed":
        known |= {"exit_code": 0, "message": f"the results cannot be delivered: {why}"}
    known |= {"usage": {}} if times > 1 else {}
    kind = "lost" if told["kind"] == "lost" else "failed"
    entry.outcome, entry.tries = {"kind": kind, "refused": times, **known}, 0
    entry.keep()
    return True
