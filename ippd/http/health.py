"""Two routes for those who watch the daemon: does it answer, and can it do its work."""

from typing import TYPE_CHECKING

from ippd.errors import IppdError, Unavailable
from ippd.http.answers import Answer, json_answer
from ippd.http.family import Family
from ippd.permissions import ANONYMOUS

if TYPE_CHECKING:
    from ippd.http.request import Request


def _sentence(request: "Request", error: IppdError) -> Answer:
    return json_answer({"error": str(error)}, error.status)


def make_health() -> Family:
    """The family of /livez and /readyz."""
    family = Family("health", "", lambda request: ANONYMOUS, _sentence)

    # A process answers and can read the store; 500 when it should be started again.
    @family.get("/livez")
    def live(request: "Request") -> bool:
        request.core.check_alive()
        return True

    # The store answers and uploads have room. What is missing is told on the local listener only.
    @family.get("/readyz")
    def ready(request: "Request") -> bool:
        problems = request.core.ready()
        if problems:
            raise Unavailable("; ".join(problems) if request.listener == "local" else "not ready")
        return True

    return family
