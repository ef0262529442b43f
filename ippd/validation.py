"""Whether the values of a submission fit the form of its app: one sentence per field that does not."""

import math
import re
from collections.abc import Mapping

from ippd.definitions import Field

# Fields that are facts of the experiment itself: their word in a definition and the core's.
FACTS = {"experimentName": "name", "experimentDescription": "description"}
WHOLE = re.compile(r"[+-]?[0-9]{1,300}")


def wrong_text(field: Field, text: str) -> str | None:
    """What is wrong with the text of a field that is not empty, as a sentence; None when nothing is."""
    if "\0" in text:
        return "this may not hold a NUL character"
    if field.kind == "attachment":
        return "this must be a file"
    if field.kind == "select":
        return None if text in field.choices else f"this must be one of {', '.join(field.choices)}"
    if field.kind == "string":
        return _outside(field, len(text), "characters")
    if field.kind == "integer":
        # By its digits and not by its value: the program behind it need not read 1e3 or 2.0.
        return _outside(field, int(text), "") if WHOLE.fullmatch(text) else "this must be a whole number"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or not text.isascii() or "_" in text or text != text.strip():
        return "this must be a number"
    return _outside(field, number, "")


def _outside(field: Field, number: float, unit: str) -> str | None:
    if (field.least is None or number >= field.least) and (field.most is None or number <= field.most):
        return None
    unit = unit and f" {unit}"
    if field.least is not None and field.most is not None:
        if field.least == field.most:
            return f"this must be exactly {field.least}{unit}"
        return f"this must be from {field.least} to {field.most}{unit}"
    return f"this must be at least {field.least}{unit}" if field.most is None else f"this must be at most {field.most}{unit}"


def wrong_so_far(fields: Mapping[str, Field], texts: Mapping[str, str], counts: Mapping[str, int]) -> dict[str, list[str]]:
    """What is wrong already, before the rest has come: `texts` and `counts` (files per field) are those that are there."""
    wrong = {}
    for name, text in texts.items():
        field = fields.get(name)
        sentence = wrong_text(field, text) if field and text else None if field else "this app has no such field"
        if sentence:
            wrong[name] = [sentence]
    for name, count in counts.items():
        field = fields.get(name)
        if field is None or field.kind != "attachment":
            wrong[name] = ["this app has no such field for files"]
        elif field.most is not None and count > field.most:
            wrong[name] = [str(_outside(field, count, "files"))]
    return wrong


def wrong_at_end(fields: Mapping[str, Field], texts: Mapping[str, str], counts: Mapping[str, int]) -> dict[str, list[str]]:
    """What is wrong with a whole submission, by field."""
    wrong = wrong_so_far(fields, texts, counts)
    for name, field in fields.items():
        given = counts.get(name, 0) if field.kind == "attachment" else len(texts.get(name, ""))
        if name in wrong:
            continue
        if not given and field.required:
            wrong[name] = ["this is needed"]
        elif given and field.kind == "attachment" and (sentence := _outside(field, given, "files")):
            wrong[name] = [sentence]
    return wrong
