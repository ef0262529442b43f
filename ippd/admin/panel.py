"""The panel's routes: two pages, and the forms on them. Wrappers call the forms' routes with curl as well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ippd import VERSION
from ippd.admin.views import groups_view, users_view
from ippd.errors import Invalid, IppdError
from ippd.fields import whole_number
from ippd.http import Answer, Family, Request, account, check_csrf, csrf_token, json_answer, page, pages, redirect
from ippd.permissions import Actor

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "static" / "panel.css").read_bytes()
render = pages(FOLDER / "templates")
# What a browser sends with a form and a program does not. Without all of them no page can be behind the request.
BROWSER = ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Cookie")
# With `no-referrer` browsers would send `Origin: null` with our own forms.
HEADERS = {"Referrer-Policy": "same-origin"}


def authenticate(request: Request) -> Actor:
    """Whoever is let in on the local listener."""
    return Actor(request.local_role or "anonymous", address=request.address, name=account(request.peer_uid))


def render_error(request: Request, error: IppdError) -> Answer:
    """A page for a browser, {"error": sentence} for a program."""
    if "text/html" not in (request.header("Accept") or ""):
        return json_answer({"error": str(error)}, error.status)
    body = render("error.html", sentence=str(error), back="/admin/groups" if "group" in request.path else "/admin/users")
    return page(render("base.html", title="Not done", body=body, version=VERSION, waiting=0), error.status, HEADERS)


panel = Family("panel", ("", "/api"), authenticate, render_error)


def form(path: str) -> Callable[..., Any]:
    """Mark a handler as the answer to a form: checks the form's token, and goes to the path that the handler returns."""

    def mark(handler: Callable[..., str]) -> Callable[..., Answer]:
        def answer(request: Request, **places: int) -> Answer:
            if "csrf" in request.form or any(request.header(name) is not None for name in BROWSER):
                check_csrf(request)
            return redirect(handler(request, **places))

        return panel.post(path, local=True)(answer)  # type: ignore[no-any-return]

    return mark


def show(request: Request, template: str, title: str, values: dict[str, Any], waiting: int) -> Answer:
    """A page of the panel."""
    body = render(template, csrf=csrf_token(request), **values)
    return page(render("base.html", title=title, body=body, version=VERSION, waiting=waiting), headers=HEADERS)


def back(request: Request, place: str) -> str:
    """The path of the list of users as it was shown, at one of them."""
    shown = {name: request.query[name] for name in ("status", "q", "page") if request.query.get(name)}
    return "/admin/users" + (f"?{urlencode(shown)}" if shown else "") + f"#{place}"


# GET /admin, /admin/ or / -> the list of users.
@panel.get("/", local=True)
@panel.get("/admin", local=True)
@panel.get("/admin/", local=True)
def start(request: Request) -> Answer:
    return redirect("/admin/users")


# GET /admin/panel.css -> the style of the pages.
@panel.get("/admin/panel.css", local=True)
def style(request: Request) -> Answer:
    return Answer(200, {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "no-cache"}, STYLE)


# GET /admin/users: optional status, q (part of an address or of a profile), page -> the list of users as a page.
@panel.get("/admin/users", local=True)
def users(request: Request) -> Answer:
    everybody = request.core.users.list(request.actor)
    view = users_view(everybody, request.core.groups.list(request.actor), request.query)
    return show(request, "users.html", "Users", view, view["counts"]["pending"])


# GET /admin/groups -> the list of groups as a page.
@panel.get("/admin/groups", local=True)
def groups(request: Request) -> Answer:
    everybody = request.core.users.list(request.actor)
    view = groups_view(request.core.groups.list(request.actor), everybody, request.settings)
    waiting = sum(user["status"] == "pending" for user in everybody)
    return show(request, "groups.html", "Groups", view, waiting)


# POST /admin/users/{id}/approve -> 302 to the list.
@form("/admin/users/{id}/approve")
def approve(request: Request, id: int) -> str:
    request.core.users.approve(request.actor, id)
    return back(request, f"user-{id}")


# POST /admin/users/{id}/deny -> 302 to the list.
@form("/admin/users/{id}/deny")
def deny(request: Request, id: int) -> str:
    request.core.users.deny(request.actor, id)
    return back(request, f"user-{id}")


# POST /users/groups/map: uid, any number of gid -> 302 to the list. The user is in exactly these groups.
@form("/users/groups/map")
def assign(request: Request) -> str:
    user = whole_number(request.form.get("uid"), "uid")
    ids = [whole_number(gid, "gid") for gid in request.forms.get("gid", [])]
    request.core.groups.assign(request.actor, user, ids)
    return back(request, f"user-{user}")


# POST /groups/create: group (a name) -> 302 to the list.
@form("/groups/create")
def create(request: Request) -> str:
    return f"/admin/groups#group-{request.core.groups.create(request.actor, request.form.get('group', ''))}"


# POST /groups/edit/{id}: group (the new name) -> 302 to the list.
@form("/groups/edit/{id}")
def rename(request: Request, id: int) -> str:
    request.core.groups.rename(request.actor, id, request.form.get("group", ""))
    return f"/admin/groups#group-{id}"


# POST /groups/remove/{id} -> 302 to the list.
@form("/groups/remove/{id}")
def remove(request: Request, id: int) -> str:
    request.core.groups.remove(request.actor, id)
    return "/admin/groups"


# POST /groups/limits/{id}: any of the limits by name; a size, a number, or nothing for the common one -> 302 to the list.
@form("/groups/limits/{id}")
def limits(request: Request, id: int) -> str:
    given = {name: text.strip() or None for name, text in request.form.items() if name != "csrf"}
    if not given:
        raise Invalid("this form names no limit")
    request.core.groups.limit(request.actor, id, given)
    return f"/admin/groups#group-{id}"
