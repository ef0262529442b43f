"""Runs first in the frozen program: stands in for modules that libraries import but that have nothing to do here.

dataset and alembic serve other databases too, alembic writes scripts from templates, SQLAlchemy and APScheduler know event loops and
pools of processes, and Python keeps a table of how it was built: 7 MB of memory in all. Only the names that are looked up while the libraries are imported are here; ippd.spec leaves the modules out.
"""

import inspect
import sys
from concurrent.futures import CancelledError
from types import ModuleType

STAND_INS: dict[str, dict[str, object]] = {
    "sqlalchemy.dialects.postgresql": {"JSONB": None},
    "alembic.ddl.mssql": {},
    "alembic.ddl.mysql": {},
    "alembic.ddl.oracle": {},
    "alembic.ddl.postgresql": {},
    "asyncio": {
        "CancelledError": CancelledError,
        "TimeoutError": TimeoutError,
        "iscoroutine": inspect.iscoroutine,
        "iscoroutinefunction": inspect.iscoroutinefunction,
    },
    "concurrent.futures.process": {"BrokenProcessPool": RuntimeError},
    "mako": {},
    "mako.exceptions": {},
    "mako.template": {"Template": None},
    "multiprocessing": {},
    "_sysconfigdata__linux_x86_64-linux-gnu": {"build_time_vars": {}},
}

for name, content in STAND_INS.items():
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
sys.modules["mako"].exceptions = sys.modules["mako.exceptions"]  # type: ignore[attr-defined]
