"""What belongs on a host besides the program: the unit, the init script, its defaults, log rotation. Carried inside the program."""

from pathlib import Path

FOLDER = Path(__file__).parent


def text(name: str) -> str:
    """One of the files that lie here, as text."""
    return (FOLDER / name).read_text(encoding="utf-8")
