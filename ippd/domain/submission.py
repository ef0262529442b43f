"""What comes in with a submission or with results: parts in the order sent, and safe names for their files."""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

LONGEST_NAME = 180  # bytes: leaves room for "-1000" below the 255 of common file systems
ENDING = re.compile(r"(\.(nii|tar|img|hdr))?\.[^.]+$", re.IGNORECASE)


class Part(NamedTuple):
    """One part: kind "fact" (of the experiment itself), "param" (text of the app) or "file" (`value` yields its bytes)."""

    kind: str
    name: str
    value: str | Iterable[bytes]
    filename: str | None = None


def safe_name(name: str) -> str:
    """A file name that no shell, file system or zip reader takes for something else; letters of all scripts stay.

    Only the last component of a path counts; NFC; what is no letter, digit, mark or one of `._-+=@` becomes `_`; no leading `-` or `.`;
    an empty name becomes `file`.
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1].strip())
    name = "".join(c if unicodedata.category(c)[0] in "LMN" or c in "._-+=@" else "_" for c in name if unicodedata.category(c) != "Cc")
    name = unicodedata.normalize("NFC", name).lstrip("-.")  # again: what went may have stood between a letter and its mark
    stem, ending = _divide(name)
    while len((stem + ending).encode()) > LONGEST_NAME:
        stem, ending = (stem[:-1], ending) if stem else (stem, ending[:-1])
    return stem + ending or "file"


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, or with `-2`, `-3`, ... before its ending when it is taken; the answer is added to `taken`."""
    stem, ending = _divide(name)
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{stem}-{number}{ending}"
    taken.add(candidate)
    return candidate


def _divide(name: str) -> tuple[str, str]:
    match = ENDING.search(name)
    if match and match.start() > 0:
        return name[: match.start()], match.group()
    return name, ""
