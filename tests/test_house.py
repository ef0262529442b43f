"""The rules of the house: which module may import which, who may do what, how large a room may be."""

import ast
import configparser
import importlib
import inspect
import pkgutil
import re
import statistics
import sys
from pathlib import Path

import pytest

import ippd
from ippd import domain, errors
from ippd.domain.states import ENDED, MOVES, STATES, TIMES
from ippd.permissions import ANY, OWN, ROLES, TAKEN, Actor
from ippd.schema import TABLES
from ippd.setting_table import SETTINGS
from ippd.settings import sample

ROOT = Path(ippd.__file__).resolve().parents[1]

# From the top: a module may import what stands in a lower row, and in its own row if it is one of FLAT.
ROWS = {
    "programs": {"__main__", "cli", "daemon", "children", "processes", "probe", "watchdog", "doctor", "checks", "succession", "rehearsal"},
    "edges": {"server", "http", "schedule", "mail", "admin", "api", "worker", "runners", "calls", "client"},
    "domain": {"core", "domain"},
    "ground": {
        "store", "disk", "blobs", "permissions", "fields", "schema", "settings", "setting_table", "setting_types", "ini",
        "errors", "certificate", "logs", "wholefile", "releases", "host", "definitions", "validation", "command", "stop", "partfile",
        "livecopy", "peers", "dial",
    },
}
FLAT = {"programs", "domain", "ground"}
# The edges do not know each other, but for the families, which speak HTTP, and what calls a portal; the worker also drives engines.
KNOWN = {"admin": {"http"}, "api": {"http"}, "worker": {"runners", "calls"}, "client": {"calls"}}
ONLY = {
    "cheroot": {"server"}, "bottle": {"http"}, "multipart": {"http"}, "apscheduler": {"schedule"},
    "dataset": {"store"}, "sqlalchemy": {"store"}, "alembic": {"store", "schema"},
}  # fmt: skip
PACKAGES = {"PyJWT": "jwt", "zipstream-ng": "zipstream", "APScheduler": "apscheduler"}  # a project that is imported by another name
MOST_LINES, MOST_FUNCTION = 300, 50
HOME = r"(?<![\w.$}/-])/(?:root|home/[\w-]+)/\S+"


def sources():
    """(name of the room, path, tree) of each module: the room of ippd/http/request.py is http."""
    for path in sorted((ROOT / "ippd").rglob("*.py")):
        room = path.relative_to(ROOT / "ippd").parts[0].removesuffix(".py")
        yield room, path.relative_to(ROOT), ast.parse(path.read_text())


SOURCES = list(sources())


def imported(tree):
    """The names of all modules that are imported anywhere in it; `from ippd import x` is ippd.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "ippd":
                yield from (f"ippd.{alias.name}" for alias in node.names)
            else:
                yield node.module


def row(room):
    return next((name for name, rooms in ROWS.items() if room in rooms), None)


def may_import(room, other):
    """Whether a module of `room` may import one of `other`."""
    order = list(ROWS)
    if room == other or order.index(row(other)) > order.index(row(room)):
        return True
    return (row(room) == row(other) and row(room) in FLAT) or other in KNOWN.get(room, ())


def test_each_module_has_a_room():
    assert {room for room, _, _ in SOURCES} - {"__init__"} == set().union(*ROWS.values())


def test_imports_go_down_only():
    wrong = [
        f"{path} imports {name}"
        for room, path, tree in SOURCES
        for name in imported(tree)
        if name.startswith("ippd.") and name != "ippd.VERSION" and not may_import(room, name.split(".")[1])
    ]
    assert wrong == []


def test_each_library_is_named_in_its_room_only():
    wrong = [
        f"{path} imports {name}"
        for room, path, tree in SOURCES
        for name in imported(tree)
        if room not in ONLY.get(name.split(".")[0], {room})
    ]
    assert wrong == []


def test_each_library_is_a_requirement():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = {re.match(r"[\w-]+", line)[0] for line in config["options"]["install_requires"].split("\n") if line}
    known = {PACKAGES.get(name, name) for name in required} | {"sqlalchemy", "alembic"}  # dataset brings the last two
    named = {name.split(".")[0] for _, _, tree in SOURCES for name in imported(tree)}
    assert named - set(sys.stdlib_module_names) - {"ippd"} <= known
    assert known - named <= {"alembic"}


def test_everything_is_imported_at_the_top():
    """A frozen daemon must not look for files later: what it unpacked may have been cleaned away."""
    late = [
        f"{path}:{node.lineno}"
        for _, path, tree in SOURCES
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert late == []


def test_only_commands_print():
    """What a lower layer has to say it returns, raises or logs: who calls it may be no command."""
    talks = [
        f"{path}:{node.lineno}"
        for room, path, tree in SOURCES
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and row(room) != "programs"
    ]
    assert talks == []


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node):
    return node.end_lineno - node.lineno + 1


def test_no_room_is_too_large():
    lines = {path: len((ROOT / path).read_text().splitlines()) for _, path, _ in SOURCES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}
    sizes = {f"{path}:{node.name}": length(node) for _, path, tree in SOURCES for node in functions(tree)}
    assert {name: size for name, size in sizes.items() if size > MOST_FUNCTION} == {}
    assert statistics.median(sizes.values()) < 10


def test_each_module_and_public_method_says_what_it_is():
    silent = []
    for room, path, tree in SOURCES:
        if not ast.get_docstring(tree):
            silent.append(str(path))
        if row(room) not in ("domain", "ground"):
            continue
        for owner in (node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")):
            methods = [node for node in owner.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
            silent += [f"{path}: {owner.name}.{node.name}" for node in methods if not ast.get_docstring(node)]
    assert silent == []


def domain_methods():
    """(name, method) of each public method of the domain."""
    for info in pkgutil.iter_modules(domain.__path__):
        module = importlib.import_module(f"ippd.domain.{info.name}")
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == module.__name__:
                for name, method in inspect.getmembers(owner, inspect.isfunction):
                    if not name.startswith("_"):
                        yield f"{owner.__name__}.{name}", method


def test_each_domain_method_that_takes_an_actor_has_a_permission():
    with_actor = {name: method for name, method in domain_methods() if "actor" in inspect.signature(method).parameters}
    assert len(with_actor) > 30
    assert [name for name, method in with_actor.items() if not hasattr(method, "permission")] == []
    assert [name for name, method in domain_methods() if hasattr(method, "permission") and name not in with_actor] == []


def test_each_permission_is_in_the_table_and_used():
    granted = {permission for role in ROLES.values() for permission in role}
    assert {method.permission for _, method in domain_methods() if hasattr(method, "permission")} == granted
    assert {scope for role in ROLES.values() for scope in role.values()} == {OWN, ANY, TAKEN}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_a_permission_is_refused_before_the_method_runs(role):
    for _, method in domain_methods():
        if getattr(method, "permission", None) and method.permission not in ROLES[role]:
            with pytest.raises(errors.Unauthorized if role == "anonymous" else errors.Forbidden):
                method(None, Actor(role))


def test_each_state_is_mapped():
    assert {after for moves in MOVES.values() for after in moves} == set(STATES)
    assert set(ENDED) == {"completed", "failed", "cancelled"}
    assert set(TIMES.values()) <= set(TABLES["experiments"])


def test_the_states_in_the_documents_are_those_of_the_table():
    """The diagram lacked three moves."""
    table = "".join(f"| {state} | {', '.join(after) or '-'} |\n" for state, after in MOVES.items())
    assert f"| state | may become |\n|---|---|\n{table}\n" in (ROOT / "docs/design.md").read_text()


def test_the_portals_document_names_each_file_of_its_routes():
    """It named one of two."""
    text = (ROOT / "docs/portal.md").read_text()
    files = [str(path) for room, path, tree in SOURCES if room == "api" and path.name.startswith("portal")]
    assert len(files) > 1 and [path for path in files if f"`{path}`" not in text] == []


def all_errors(base=errors.IppdError):
    for kind in base.__subclasses__():
        yield from all_errors(kind)
        if not kind.__name__.startswith("_"):
            yield kind


def test_each_error_is_mapped():
    kinds = [kind for kind in all_errors() if kind.__module__ == errors.__name__]
    on_the_wire = [kind for kind in kinds if not issubclass(kind, errors.SettingsError)]
    assert len({kind.code for kind in kinds}) == len(kinds) > 10
    assert len({kind.status for kind in on_the_wire}) == len(on_the_wire)
    for kind in on_the_wire:
        assert 400 <= kind.status <= 599 and kind.status != 500
        assert kind.sentence.endswith(".")


def test_each_setting_is_documented():
    text = sample()
    for setting in SETTINGS:
        section, _, option = setting.name.partition(".")
        assert setting.help.endswith("."), setting.name
        assert re.search(rf"^\[{section}\]\n(?:.*\n)*?# {re.escape(setting.help)}\n#{option} =", text, re.MULTILINE), setting.name


def project_files():
    """Each text file of the project: what a clone has, as far as it can be seen without git."""
    aside = {".git", ".venv", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not aside & set(parts) and not any(part.endswith(".egg-info") for part in parts):
            try:
                yield path.relative_to(ROOT), path.read_text()
            except UnicodeDecodeError:
                continue


def test_no_file_leads_into_a_home_folder():
    """What is built or tested here is so for whoever has a clone."""
    found = [f"{path} has {word}" for path, text in project_files() for word in re.findall(HOME, text)]
    assert found == []
