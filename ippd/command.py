"""The command of an experiment as a list of words: what a user sent is always a whole word or the end of one, never syntax."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

FOLDER = "$experdir"
OFF = ("", "0", "no", "false", "off")


def words(backend: Mapping[str, Any], params: Mapping[str, str], files: Mapping[str, list[str]], folder: str) -> list[str]:
    """The words that run an app. `backend` is a backend half as the queue hands it out, `folder` the experiment's folder ($experdir).

    The inputs lie in `folder`/inputs; several files of one field are one word, joined by commas (which no stored name has). A default
    that begins with $experdir belongs to the site: no submission can set another. Raises ValueError when a file is needed and was not sent.
    """
    defaults = {name: _placed(value, folder) for name, value in backend["defaults"].items()}
    ours = {name for name, value in backend["defaults"].items() if value.startswith(FOLDER)}
    values = dict(defaults)
    for name, text in params.items():
        if name not in ours and name not in files and text != "":
            values[name] = text
    for name, names in files.items():
        if name not in ours:
            values[name] = ",".join(os.path.join(folder, "inputs", file) for file in names)
    for name in backend["files"]:
        if name in values and name not in files:
            raise ValueError(f"the field {name} must be a file")
    found = [backend["executable"]]
    for name, flag in backend["params"].items():
        if name in values:
            found += [flag + values[name]] if flag.endswith("=") else [flag, values[name]] if flag else [values[name]]
    return found + [flag for name, flag in backend["binopts"].items() if values.get(name, "").lower() not in OFF]


def _placed(value: str, folder: str) -> str:
    rest = value.removeprefix(FOLDER)
    return folder + rest if value.startswith(FOLDER) and rest[:1] in ("", "/") else value


def contained(template: str, image: str, folder: str, program: list[str]) -> list[str]:
    """`program` inside a container: the words of the template with {image}, {folder}, {uid} and {gid} put in, then the program.

    Raises ValueError when the template is broken.
    """
    places = {"{image}": image, "{folder}": folder, "{uid}": str(os.getuid()), "{gid}": str(os.getgid())}
    prefix = shlex.split(template)
    if not any("{image}" in word for word in prefix):
        raise ValueError("worker.container names no {image}")
    return [_filled(word, places) for word in prefix] + program


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, value in places.items():
        if place in word:
            before, _, after = word.partition(place)
            return before + value + _filled(after, places)
    return word
