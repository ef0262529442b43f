"""The portal's dialect: what its browser frontend, its job scripts and its operators' wrappers speak (docs/portal.md)."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ippd.domain.submission import Part
from ippd.errors import Invalid, IppdError
from ippd.fields import whole_number
from ippd.http import Answer, Family, Request, account, file_answer, from_another_site, json_answer, json_text, list_answer, zip_answer
from ippd.permissions import Actor
from ippd.releases import VERSION

# The facts of an experiment: the portal's word and the core's.
FACTS = {"app": "app", "experimentName": "name", "experimentDescription": "description", "host": "host", "label": "label"}
# How it is to be run: not words that an app's own field could have.
RUN = {"run-priority": "priority", "run-parents": "parents", "run-time-limit": "time_limit", "run-restarts": "restarts"}
# What a listing says besides them. Clients need `inputs`, `outputs` and `params` in each experiment, whatever its state.
NAMES = FACTS | {"id": "id", "status": "status", "inputs": "inputs", "outputs": "outputs", "params": "params"}
NAMES |= {name: name for name in ("exit_code", "message", "usage", "priority", "restarts")}
LOG = "log.txt"  # the output that is an experiment's log
MOST = 2**53  # what a listing may be asked to skip or hold at most: the largest number that JSON readers keep exactly
# Failures that the frontend shows only when they come with 200; asked with JSON or a Bearer token they keep their status, as
# does "too many" everywhere: what counts there is that clients hear when to come back.
FAILURES = (400, 401, 403, 404, 409)


def authenticate(request: Request) -> Actor:
    """A script on a local route; elsewhere whoever the token names, which is in a header, the query or a field before any file."""
    name, claim = account(request.peer_uid), request.query.get("claim")
    local = Actor(request.local_role or "anonymous", address=request.address, name=name, claim=claim)
    if request.route is not None and request.route.local:
        return local
    token = request.bearer or request.query.get("token") or request.early_field("token")
    if token:
        return request.core.sessions.actor(token, request.address)
    # Pages of other sites may read what a public route answers: there they are nobody, whoever has them open in a browser.
    return anonymous(request) if request.listener == "public" or from_another_site(request) else local


def anonymous(request: Request) -> Actor:
    """Somebody who need not be logged in."""
    return Actor("anonymous", address=request.address)


def render_error(request: Request, error: IppdError) -> Answer:
    """{"error": sentence}, and {"fields": {name: [sentence]}} when it is about some; with 200 on the routes whose failures the frontend
    must be able to show.
    """
    said: dict[str, Any] = {"error": str(error)} | ({"fields": error.fields} if isinstance(error, Invalid) and error.fields else {})
    told: dict[str, Any] | None = request.route.options.get("failure") if request.route else None
    if told is None or request.json_asked:
        return json_answer(said, error.status)
    return json_answer(told | said, 200 if error.status in FAILURES else error.status)


def experiment_out(experiment: dict[str, Any]) -> dict[str, Any]:
    """EXPERIMENT, as listings show it."""
    return {word: experiment[name] for word, name in NAMES.items()} | {"created": timestamp(experiment["created_at"])}


def experiment_text(experiment: dict[str, Any]) -> str:
    """The same as JSON."""
    return json_text(experiment_out(experiment))


def queue_item_out(item: dict[str, Any]) -> dict[str, Any]:
    """An experiment as a job script gets it: every parameter a text, files named as they lie in the script's folder."""
    files = {field: ",".join(f"inputs/{name}" for name in names) for field, names in item["files"].items()}
    facts = {word: item[name] for word, name in FACTS.items() if name in item}
    return facts | {"id": item["id"], "user": item["user"], "params": item["params"] | files, "files": item["files"]}


def user_out(user: dict[str, Any]) -> dict[str, Any]:
    """A user as the operators' wrappers get it. Tokens are not stored, so there is none to show."""
    names = ("id", "email", "status", "settings", "groups")
    return {name: user[name] for name in names} | {"token": None, "approved": int(user["status"] == "approved")}


def timestamp(seconds: float) -> str:
    """A time as the portal writes it: UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def submission(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts of a submission: facts under the core's names, without the token."""
    for part in parts:
        if part.kind == "param" and part.name in FACTS | RUN:
            yield Part("fact", (FACTS | RUN)[part.name], part.value)
        elif part.kind != "param" or part.name != "token":
            yield part


def ticked(text: str) -> bool:
    """Whether a box of a form is ticked."""
    return text.strip().lower() in ("1", "true", "on", "yes")


def new_password(form: dict[str, str]) -> str:
    """The new password of a form. Raises Invalid when it was typed differently the second time."""
    password = form.get("password", "")
    if form.get("confirm-password", password) != password:
        raise Invalid("the two passwords are not the same")
    return password


portal = Family("portal", ("", "/api"), authenticate, render_error)


# POST /users/new: email, password, confirm-password, any number of setting-NAME -> true. The account waits for approval.
@portal.post("/users/new")
def sign_up(request: Request) -> bool:
    settings = {name.removeprefix("setting-"): value for name, value in request.form.items() if name.startswith("setting-")}
    with request.hashing():
        request.core.users.sign_up(anonymous(request), request.form.get("email", ""), new_password(request.form), settings)
    return True


# POST /users/auth: email, password, remember -> {"token": str}, or {"token": null, "error": str}.
@portal.post("/users/auth", failure={"token": None})
def log_in(request: Request) -> dict[str, str]:
    form = request.form
    with request.hashing():
        token = request.core.sessions.log_in(
            anonymous(request), form.get("email", ""), form.get("password", ""), ticked(form.get("remember", ""))
        )
    return {"token": token}


# POST /users/logout: token -> true. The token is good no longer.
@portal.post("/users/logout")
def log_out(request: Request) -> bool:
    request.core.sessions.log_out(request.actor)
    return True


# POST /users/password/forgot: email -> true, whether or not the address is known. A code comes by mail.
@portal.post("/users/password/forgot")
def forgot_password(request: Request) -> bool:
    request.core.users.forgot_password(anonymous(request), request.form.get("email", ""))
    return True


# POST /users/password/reset: token (the code of the mail), password, optional confirm-password -> true.
@portal.post("/users/password/reset")
def reset_password(request: Request) -> bool:
    token, password = request.form.get("token", ""), new_password(request.form)
    with request.hashing():
        request.core.users.reset_password(anonymous(request), token, password)
    return True


# POST /users/password/change: token, old-password, password, optional confirm-password -> true. All other sessions end.
@portal.post("/users/password/change")
def change_password(request: Request) -> bool:
    actor, old, password = request.actor, request.form.get("old-password", ""), new_password(request.form)
    with request.hashing():
        request.core.users.change_password(actor, old, password)
    return True


# POST /users/settings/set: token, name, value -> true.
@portal.post("/users/settings/set", failure={})
def set_setting(request: Request) -> bool:
    request.core.users.set_setting(request.actor, request.form.get("name", ""), request.form.get("value", ""))
    return True


# GET /users/groups: token -> {"groups": [str]}.
@portal.get("/users/groups", failure={})
def groups(request: Request) -> dict[str, list[str]]:
    return {"groups": request.core.groups.names(request.actor)}


# GET /users/list: optional awaiting_approval=1 -> [USER], newest first.
@portal.get("/users/list", local=True)
def users(request: Request) -> list[dict[str, Any]]:
    status = "pending" if ticked(request.query.get("awaiting_approval", "")) else None
    return [user_out(user) for user in request.core.users.list(request.actor, status)]


# GET or POST /users/approve/{id} -> true.
@portal.get("/users/approve/{id}", local=True, changes=True)
@portal.post("/users/approve/{id}", local=True)
def approve(request: Request, id: int) -> bool:
    request.core.users.approve(request.actor, id)
    return True


# GET or POST /users/deny/{id} -> true.
@portal.get("/users/deny/{id}", local=True, changes=True)
@portal.post("/users/deny/{id}", local=True)
def deny(request: Request, id: int) -> bool:
    request.core.users.deny(request.actor, id)
    return True


# GET /experiments: token, optional limit, offset, status -> {"experiments": [EXPERIMENT]}, ascending id.
@portal.get("/experiments", failure={})
def experiments(request: Request) -> Answer:
    query = request.query
    limit = whole_number(query["limit"], "limit", most=MOST) if "limit" in query else None
    offset = whole_number(query.get("offset", "0"), "offset", most=MOST)
    return list_answer("experiments", request.core.experiments.shaped(request.actor, experiment_text, limit, offset, query.get("status")))


# POST /experiments/new: token, then app, experimentName, experimentDescription, host, label; parameters; files -> {"id", "status"}.
@portal.post("/experiments/new")
def submit(request: Request) -> dict[str, Any]:
    experiment = request.core.experiments.submit(request.actor, submission(request.parts()), request.length)
    return {"id": experiment["id"], "status": experiment["status"]}


# GET /experiments/queue: optional limit, host, app -> [ITEM]; each one handed out is queued from then on.
@portal.get("/experiments/queue", local=True, changes=True)
def queue(request: Request) -> list[dict[str, Any]]:
    query = request.query
    limit = whole_number(query["limit"], "limit", least=1, most=MOST) if "limit" in query else None
    shares = ([query[name]] if query.get(name) else [] for name in ("host", "app"))
    return [queue_item_out(item) for item in request.core.queue.claim(request.actor, limit, *shares)]


# GET /experiments/{id}: token -> EXPERIMENT.
@portal.get("/experiments/{id}")
def experiment(request: Request, id: int) -> dict[str, Any]:
    return experiment_out(request.core.experiments.get(request.actor, id))


# GET /experiments/{id}/file: token, path -> the bytes of an output, else of an input.
@portal.get("/experiments/{id}/file")
def file(request: Request, id: int) -> Answer:
    return file_answer(request, request.core.files.open(request.actor, id, request.query.get("path", "")))


# GET /experiments/{id}/files -> a zip of the inputs. It acknowledges a claim, so HEAD and pages of other sites may not.
@portal.get("/experiments/{id}/files", local=True, changes=True)
def inputs(request: Request, id: int) -> Answer:
    return zip_answer(f"{id}.zip", request.core.files.inputs(request.actor, id))


# POST /experiments/{id}/results: files under any field names -> true. The experiment is completed.
@portal.post("/experiments/{id}/results", local=True)
def results(request: Request, id: int) -> bool:
    request.core.files.add_results(request.actor, id, request.parts(), request.length)
    return True


# DELETE /experiments/{id}/delete -> true, or false if there was nothing left to delete.
@portal.delete("/experiments/{id}/delete", local=True)
def delete(request: Request, id: int) -> bool:
    return request.core.experiments.remove(request.actor, id)


# GET /files/old: days -> [path], which /files/delete accepts.
@portal.get("/files/old", local=True)
def old_files(request: Request) -> list[str]:
    return request.core.files.old(request.actor, request.query.get("days", ""))


# POST /files/delete: path -> true.
@portal.post("/files/delete", local=True)
def delete_file(request: Request) -> bool:
    request.core.files.delete(request.actor, request.form.get("path", ""))
    return True


# POST /notifications/notify: email, message -> true.
@portal.post("/notifications/notify", local=True)
def notify(request: Request) -> bool:
    request.core.notifications.notify(request.actor, request.form.get("email", ""), request.form.get("message", ""))
    return True


# GET /version -> {"version": str, "frontend": str or null}.
@portal.get("/version")
def version(request: Request) -> dict[str, str | None]:
    return request.core.updates.versions()


# POST /version/update: checkout -> {"version": str}: a signed release that lies in update.directory runs now.
@portal.post("/version/update", local=True)
def update(request: Request) -> dict[str, str]:
    return {"version": _update(request, request.core.updates.program)}


# POST /fe-version/update: checkout -> {"frontend": str}.
@portal.post("/fe-version/update", local=True)
def update_frontend(request: Request) -> dict[str, str]:
    return {"frontend": _update(request, request.core.updates.frontend)}


def _update(request: Request, take: Callable[[Actor, str], str]) -> str:
    wanted = request.form.get("checkout", "")
    if not VERSION.fullmatch(wanted):
        raise Invalid(fields={"checkout": ["this must be a version"]})
    with request.slow():  # a trial and a handover take seconds
        return take(request.actor, wanted)
