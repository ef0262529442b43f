"""Which tests can be pointed at the binary: those that start ippd as a process, whatever function, class or fixture does it for them."""

import types
from pathlib import Path

import program

HERE = str(Path(__file__).parent)
SERVES = "served_core"  # the fixture of conftest.py by which a test gets a portal
WORKER = "engine"  # the fixture of tests that let a worker work step by step in their own process; test_binary.py starts the binary's
_known = {}  # what was found out: {code: whether it reaches the program}


def starts_ippd(item):
    """Whether a test starts ippd and does not need to look into it (the marker `source_only`)."""
    if item.get_closest_marker("source_only") or WORKER in item.fixturenames:
        return False
    fixtures = [made.func for several in item._fixtureinfo.name2fixturedefs.values() for made in several]
    used = [item.function, *(function for function in fixtures if function.__module__ != "conftest")]
    return SERVES in item.fixturenames or any(map(reaches, used))


def reaches(function):
    """Whether a function of the tests names tests/program.py, or something that does."""
    code = function.__code__
    if code not in _known:
        _known[code] = False  # while it is looked at, for those that call each other
        named = [function.__globals__[name] for name in _names(code) if name in function.__globals__]
        _known[code] = any(value is program or any(map(reaches, _functions(value))) for value in named)
    return _known[code]


def _names(code):
    """All names in a function and in those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _functions(value):
    """The functions of the tests behind a name: itself, or what a class or a module of the tests holds."""
    if isinstance(value, types.FunctionType):
        return [value] if value.__code__.co_filename.startswith(HERE) else []
    if isinstance(value, type) and value.__module__ in _modules():
        held = [getattr(one, "fget", None) or one for part in value.__mro__ for one in vars(part).values()]
        return [one for one in held if isinstance(one, types.FunctionType) and one.__code__.co_filename.startswith(HERE)]
    return []


def _modules():
    return {path.stem for path in Path(HERE).glob("*.py")}
