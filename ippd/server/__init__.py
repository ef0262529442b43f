"""HTTP for one serving process: several sockets with an app each, TLS, deadlines, few threads; on cheroot."""

from ippd.server.limits import Limits
from ippd.server.listener import Listener
from ippd.server.loop import Server
from ippd.server.sockets import bind_tcp, bind_unix

__all__ = ["Limits", "Listener", "Server", "bind_tcp", "bind_unix"]
