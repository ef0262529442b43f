"""Reads what PyInstaller put into the program's last section: an archive with its table at the end (src/pyi_archive.h of its
bootloader)."""

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"MEI\014\013\012\013\016"
COOKIE = struct.Struct("!8sIIII64s")  # magic, length of the archive, table's offset in it and length, Python version, libpython
ENTRY = struct.Struct("!IIIIBc")  # length of the entry, offset, packed length, length, whether packed, kind; then the name


def members(path: str | Path) -> Iterator[tuple[str, str, bytes]]:
    """The parts of a frozen program as (name, kind, bytes); the first is the whole file, which starts as an ELF program (kind "")."""
    data = Path(path).read_bytes()
    cookie = data.rfind(MAGIC)
    if cookie < 0:
        raise ValueError(f"{path} has no PyInstaller archive")
    _, length, table, table_length, _, _ = COOKIE.unpack_from(data, cookie)
    start = cookie + COOKIE.size - length
    yield "the file itself", "", data
    at = start + table
    while at < start + table + table_length:
        size, offset, packed, _, is_packed, kind = ENTRY.unpack_from(data, at)
        name = data[at + ENTRY.size : at + size].rstrip(b"\0").decode()
        content = data[start + offset : start + offset + packed]
        yield name, kind.decode(), zlib.decompress(content) if is_packed else content
        at += size


if __name__ == "__main__":
    for name, kind, content in members(sys.argv[1]):
        print(f"{len(content):9} {kind or '-'} {name}")
