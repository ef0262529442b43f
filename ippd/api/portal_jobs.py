"""The portal's dialect for apps and workers: definitions, claims with a lease, live output, holding and running again (docs/worker.md)."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from ippd.api.portal import FACTS, LOG, RUN, authenticate, render_error
from ippd.domain.output import Output
from ippd.domain.submission import Part
from ippd.errors import Invalid, NotFound, Unavailable
from ippd.fields import integer, whole_number
from ippd.http import Answer, Family, Request, file_answer

TEXT = "text/plain; charset=utf-8"
PIECE = 64 << 10  # bytes read and sent at once
LOOK = 0.5  # seconds between two looks at output that is being followed
FOLLOW = 50.0  # seconds after which a follower has to ask again: below what proxies allow, and a stopping daemon waits for it
FOLLOWERS = 8  # logs that one user (or local account) may follow at once, in each serving process
GONE = 30.0  # seconds that a cancel may wait for its job to be gone
ITEM = ("id", "uuid", "user", "host", "app", "claim", "params", "files", "inputs", "backend", "time_limit", "restarts")

jobs = Family("jobs", ("", "/api"), authenticate, render_error)


def json_text(text: str | None, name: str) -> dict[str, Any] | None:
    """A JSON object in a field of a form, None for anything else. Raises Invalid when it is no JSON."""
    try:
        value = json.loads(text) if text else None
    except (ValueError, RecursionError):  # the latter for one that is nested a thousand times
        raise Invalid(fields={name: ["this must be a JSON object"]}) from None
    return value if isinstance(value, dict) else None


def text_list(request: Request, name: str) -> list[str]:
    """A list of texts in the JSON of a body. Raises Invalid."""
    value = request.json.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Invalid(fields={name: ["this must be a list of texts"]})
    return value


# GET /apps: optional token -> [FORM], the form halves of all definitions.
@jobs.get("/apps")
def apps(request: Request) -> list[dict[str, Any]]:
    return request.core.apps.list(request.actor)


# GET /apps/{key}: optional token -> FORM.
@jobs.get("/apps/{key}")
def app(request: Request, key: str) -> dict[str, Any]:
    return request.core.apps.get(request.actor, key)


# GET /categories: optional token -> {key: CATEGORY}; one with groups is there for their members only.
@jobs.get("/categories")
def categories(request: Request) -> dict[str, Any]:
    return request.core.apps.categories(request.actor)


# POST /experiments/claim, JSON: worker, seconds, limit, optional hosts, apps -> {"experiments": [ITEM]}.
@jobs.post("/experiments/claim", local=True)
def claim(request: Request) -> dict[str, Any]:
    wanted = request.json
    items = request.core.leases.claim(
        request.actor,
        wanted.get("worker", ""),
        wanted.get("seconds", 0),
        wanted.get("limit", 0),
        text_list(request, "hosts"),
        text_list(request, "apps"),
    )
    return {"experiments": [{name: item[name] for name in ITEM} | {"experimentName": item["name"]} for item in items]}


# POST /experiments/heartbeats, JSON: claims {id: claim} -> {"answers": {id: what to do}}.
@jobs.post("/experiments/heartbeats", local=True)
def heartbeats(request: Request) -> dict[str, Any]:
    claims = request.json.get("claims")
    if not isinstance(claims, dict):
        raise Invalid(fields={"claims": ["this must be an object"]})
    held = {whole_number(id, "claims"): str(word) for id, word in claims.items()}
    return {"answers": {str(id): answer for id, answer in request.core.leases.heartbeat(request.actor, held).items()}}


# POST /experiments/{id}/running: optional claim (of a worker) -> true.
@jobs.post("/experiments/{id}/running", local=True)
def running(request: Request, id: int) -> bool:
    request.core.queue.running(request.actor, id, request.early_field("claim"))
    return True


# POST /experiments/{id}/heartbeat: optional claim -> true.
@jobs.post("/experiments/{id}/heartbeat", local=True)
def heartbeat(request: Request, id: int) -> bool:
    request.core.queue.heartbeat(request.actor, id, request.early_field("claim"))
    return True


# POST /experiments/{id}/failed: optional exit_code, message; of a worker: claim, usage (JSON) -> true.
@jobs.post("/experiments/{id}/failed", local=True)
def failed(request: Request, id: int) -> bool:
    form = request.form
    request.core.experiments.fail(
        request.actor, id, form.get("exit_code"), form.get("message"), form.get("claim"), json_text(form.get("usage"), "usage")
    )
    return True


# POST /experiments/{id}/returned: claim, message -> {"status"}: the job was lost; submitted again (suspended, if it was held), or failed.
@jobs.post("/experiments/{id}/returned", local=True)
def returned(request: Request, id: int) -> dict[str, str]:
    form = request.form
    return {"status": request.core.leases.give_back(request.actor, id, form.get("claim"), form.get("message", ""))}


# POST /experiments/{id}/stopped: claim -> true: the job of a cancelled experiment is gone.
@jobs.post("/experiments/{id}/stopped", local=True)
def stopped(request: Request, id: int) -> bool:
    request.core.leases.stopped(request.actor, id, request.form.get("claim", ""))
    return True


# POST /experiments/{id}/suspended: claim -> true: the worker has held the job.
@jobs.post("/experiments/{id}/suspended", local=True)
def suspended(request: Request, id: int) -> bool:
    request.core.runs.suspended(request.actor, id, request.form.get("claim", ""))
    return True


# POST /experiments/{id}/unable: claim, message -> true: the engine refuses to hold the job, or to let it go on.
@jobs.post("/experiments/{id}/unable", local=True)
def unable(request: Request, id: int) -> bool:
    request.core.runs.unable(request.actor, id, request.form.get("claim", ""), request.form.get("message", ""))
    return True


# POST /experiments/{id}/cancel: token, optional wait (seconds) -> {"status", "was", "gone"}; gone: true, false (not yet) or null (a
# script has it, which finds out by itself).
@jobs.post("/experiments/{id}/cancel")
def cancel(request: Request, id: int) -> dict[str, Any]:
    wait = min(GONE, integer(request.form.get("wait", "0"), "wait", 0, 3600))
    core, actor = request.core, request.actor
    answer = core.experiments.cancel(actor, id)
    if answer["gone"] is False and wait:
        deadline = time.monotonic() + wait
        # It is cancelled by now, also when no thread is left to wait in: then "not yet" is the answer.
        with suppress(NotFound, Unavailable), request.slow():
            while not answer["gone"] and time.monotonic() < deadline:
                time.sleep(LOOK / 2)
                answer["gone"] = core.experiments.gone(actor, id)
    return answer


# POST /experiments/{id}/suspend: token -> {"status"}: suspended, or still as it was until the worker has held the job.
@jobs.post("/experiments/{id}/suspend")
def suspend(request: Request, id: int) -> dict[str, str]:
    return {"status": request.core.runs.suspend(request.actor, id)}


# POST /experiments/{id}/resume: token -> {"status"}.
@jobs.post("/experiments/{id}/resume")
def resume(request: Request, id: int) -> dict[str, str]:
    return {"status": request.core.runs.resume(request.actor, id)}


# POST /experiments/{id}/relaunch: token, parameters and facts (experimentName, run-*) that shall be others -> {"id", "status"} of the new
# experiment.
@jobs.post("/experiments/{id}/relaunch")
def relaunch(request: Request, id: int) -> dict[str, Any]:
    words = FACTS | RUN
    params = {name: ",".join(values) for name, values in request.forms.items() if name != "token"}
    facts = {words[name]: params.pop(name) for name in words if name in params}
    return request.core.runs.relaunch(request.actor, id, params, facts)


# POST /experiments/{id}/priority: token, priority -> true. Users may only step back (-1000 to 0).
@jobs.post("/experiments/{id}/priority")
def priority(request: Request, id: int) -> bool:
    request.core.runs.prioritize(request.actor, id, integer(request.form.get("priority", ""), "priority", -1000, 1000))
    return True


# GET /experiments/{id}/log: token, optional stream (stdout or stderr), offset, restarts and follow=1 -> what the program printed. Following
# ends after some time, with the experiment, or when it is begun again: ask again with the new offset, which is one of the beginning that
# `restarts` names (of another one nothing comes). After the end, and for experiments that a script ran, the output log.txt is the log.
@jobs.get("/experiments/{id}/log")
def log(request: Request, id: int) -> Answer:
    core, actor, query = request.core, request.actor, request.query
    stream = query.get("stream", "stdout")
    if query.get("follow") in ("1", "true", "yes"):
        offset = whole_number(query.get("offset", "0"), "offset")
        restarts = core.outputs.open(actor, id, stream).restarts
        restarts = whole_number(query.get("restarts", str(restarts)), "restarts")
        request.following(f"{actor.role} {actor.user or actor.name}", FOLLOWERS)
        pieces = follow(lambda: core.outputs.open(actor, id, stream), offset, restarts)
        return Answer(200, {"Content-Type": TEXT, "Cache-Control": "no-store"}, pieces)
    experiment = core.experiments.get(actor, id)
    with suppress(NotFound):
        found = core.outputs.open(actor, id, stream)
        if found.size:
            stored = SimpleNamespace(path=found.path, name=f"{id}-{stream}.txt", size=found.size, sha256=f"{found.path.stem}-{found.size}")
            return file_answer(request, stored, TEXT)
    if stream != "stdout" or LOG not in experiment["outputs"]:
        if experiment["usage"] or experiment["status"] in ("queued", "running", "suspended"):  # it has printed nothing (so far)
            return Answer(200, {"Content-Type": TEXT, "Cache-Control": "no-store"})
        raise NotFound(f"experiment {id} has no log (an output named {LOG})")
    return file_answer(request, core.files.open(actor, id, LOG), TEXT)


def follow(look: Callable[[], Output], offset: int, restarts: int) -> Iterator[bytes]:
    """The bytes of one beginning from `offset` on, as they come, until no more will come or the time is over."""
    deadline = time.monotonic() + FOLLOW
    while True:
        try:
            found = look()
        except NotFound:
            return
        if found.restarts != restarts:
            return
        if found.size > offset:
            with open(found.path, "rb") as file:
                file.seek(offset)
                while piece := file.read(PIECE):
                    offset += len(piece)
                    yield piece
        elif found.ended or time.monotonic() > deadline:
            return
        else:
            yield b""
            time.sleep(LOOK)


# POST /experiments/{id}/log: claim, stream, offset, then a file -> {"size"}: append what a program has printed.
@jobs.post("/experiments/{id}/log", local=True)
def append(request: Request, id: int) -> dict[str, int]:
    told: dict[str, Any] = {}
    for part in request.parts():
        if part.kind == "file":
            return {"size": _append(request, id, told, part)}
        told[part.name] = part.value
    raise Invalid("there is no file in this form")


def _append(request: Request, id: int, told: dict[str, Any], part: Part) -> int:
    offset = integer(told.get("offset", ""), "offset", 0, 2**53)
    assert not isinstance(part.value, str)
    return request.core.outputs.append(request.actor, id, str(told.get("stream", "")), offset, part.value, told.get("claim"))
