"""The page behind the link of a password reset: a form for people whose portal has no page of its own for it."""

from ippd import VERSION
from ippd.admin.panel import HEADERS, STYLE, render
from ippd.errors import Invalid, IppdError
from ippd.http import Answer, Family, Request, json_answer, page
from ippd.permissions import Actor


def authenticate(request: Request) -> Actor:
    """Nobody is logged in here: the code of the mail is what counts."""
    return Actor("anonymous", address=request.address)


def render_error(request: Request, error: IppdError) -> Answer:
    """The form again, with the sentence, for a browser; {"error": sentence} for a program."""
    if "text/html" not in (request.header("Accept") or "") or request.route is None:
        return json_answer({"error": str(error)}, error.status)
    return show(request, error.status, problem=str(error))


reset = Family("reset", "/password", authenticate, render_error)


def show(request: Request, status: int = 200, problem: str = "", done: bool = False) -> Answer:
    """The page. Opening it does not use the code up: mail programs open links on their own."""
    try:
        token = request.query.get("token") or (request.form.get("token", "") if request.method == "POST" else "")
    except IppdError:
        token = ""
    return page(render("reset.html", token=token, problem=problem, done=done, version=VERSION), status, HEADERS)


# GET /password/reset: token -> a page that asks for a new password.
@reset.get("/reset")
def ask(request: Request) -> Answer:
    return show(request)


# GET /password/reset.css -> its style.
@reset.get("/reset.css")
def style(request: Request) -> Answer:
    return Answer(200, {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "no-cache"}, STYLE)


# POST /password/reset: token, password, confirm-password -> a page that says that it is done.
@reset.post("/reset")
def change(request: Request) -> Answer:
    form = request.form
    if form.get("password", "") != form.get("confirm-password", ""):
        raise Invalid("the two passwords are not the same")
    with request.hashing():
        request.core.users.reset_password(request.actor, form.get("token", ""), form.get("password", ""))
    return show(request, done=True)
