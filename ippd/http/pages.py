"""Pages from templates, with every value escaped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bottle import SimpleTemplate


def pages(folder: Path) -> Callable[..., str]:
    """A function `render(name, **values) -> str` over the templates `*.html` of a folder, all read now: a mistake stops the start.

    In a template `{{value}}` is escaped; `% rebase("base.html")` and `% include("row.html", ...)` name templates of the folder.
    """
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    templates = {name: SimpleTemplate(source=text, name=name, lookup=[str(folder)]) for name, text in files.items()}
    for template in templates.values():
        template.co  # noqa: B018 -- compiled now: bottle would read and compile it when it is first shown

    def render(template: str, /, **values: Any) -> str:
        return templates[template].render(**values)

    return render
