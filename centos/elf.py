"""Just enough of ELF (64 bit, little endian) to read, and to change in place, which symbol versions a file asks for and offers."""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

PT_DYNAMIC, PT_NOTE, PT_GNU_STACK, PT_GNU_RELRO = 2, 4, 0x6474E551, 0x6474E552
SHT_DYNSYM, SHT_VERDEF, SHT_VERNEED, SHT_VERSYM = 11, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
DT_NEEDED, DT_RPATH, DT_RUNPATH = 1, 15, 29
NT_GNU_ABI_TAG = 1


class Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    size: int


class Section(NamedTuple):
    kind: int
    offset: int
    size: int
    link: int


class Version(NamedTuple):
    """A symbol version that a file needs of a library ("" where it offers one): where its hash and its name's place are written."""

    library: str
    name: str
    number: int
    hash_at: int
    name_at: int


class Symbol(NamedTuple):
    name: str
    defined: bool
    version_at: int


def elf_hash(name: str) -> int:
    """The hash of a name as version tables have it (System V ABI)."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value


def version_key(name: str) -> tuple[int, ...]:
    """"GLIBC_2.10" -> (2, 10); what is no number (GLIBC_PRIVATE) is above all."""
    words = name.partition("_")[2].split(".")
    return tuple(map(int, words)) if all(word.isdigit() for word in words) else (999,)


def is_elf(head: bytes | bytearray) -> bool:
    return head[:6] == b"\x7fELF\x02\x01"


class Elf:
    """One file's bytes (`data`, may be changed) and its tables."""

    def __init__(self, data: bytes) -> None:
        if not is_elf(data):
            raise ValueError("not a 64-bit little-endian ELF file")
        self.data = bytearray(data)
        segments_at, sections_at = self.numbers("<QQ", 32)
        size, count, section_size, section_count = self.numbers("<HHHH", 54)
        self.segments = []
        for at in range(segments_at, segments_at + size * count, size):
            kind, flags, offset, _, _, length = self.numbers("<IIQQQQ", at)
            self.segments.append(Segment(kind, flags, offset, length))
        self.sections = []
        for at in range(sections_at, sections_at + section_size * section_count, section_size):
            _, kind, _, _, offset, length, link = self.numbers("<IIQQQQI", at)
            self.sections.append(Section(kind, offset, length, link))
        symbols = self.section(SHT_DYNSYM)
        self.strings = self.sections[symbols.link] if symbols else None

    def numbers(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(form, self.data, at)

    def put(self, form: str, at: int, *values: int) -> None:
        struct.pack_into(form, self.data, at, *values)

    def section(self, kind: int) -> Section | None:
        return next((section for section in self.sections if section.kind == kind), None)

    def segment(self, kind: int) -> Segment | None:
        return next((segment for segment in self.segments if segment.kind == kind), None)

    def text(self, offset: int) -> str:
        """The string at this offset of the dynamic string table."""
        assert self.strings
        start = self.strings.offset + offset
        return self.data[start : self.data.index(0, start)].decode()

    def find_text(self, text: str) -> int | None:
        """The offset of a string in the dynamic string table, None if it is not there."""
        assert self.strings
        table = bytes(self.data[self.strings.offset : self.strings.offset + self.strings.size])
        found = table.find(b"\0" + text.encode() + b"\0")
        return None if found < 0 else found + 1

    def dynamic(self, *tags: int) -> list[str]:
        """The strings that these tags of the dynamic table name (DT_NEEDED, DT_RPATH, ...)."""
        table = self.segment(PT_DYNAMIC)
        entries = [self.numbers("<QQ", table.offset + at) for at in range(0, table.size, 16)] if table else []
        return [self.text(value) for tag, value in entries if tag in tags]

    def needs(self) -> Iterator[Version]:
        """The versions that the file asks of its libraries."""
        table = self.section(SHT_VERNEED)
        at, more = (table.offset, 1) if table else (0, 0)
        while more:
            _, count, file, first, more = self.numbers("<HHIII", at)
            entry = at + first
            for _ in range(count):
                _, _, index, name, step = self.numbers("<IHHII", entry)
                yield Version(self.text(file), self.text(name), index, entry, entry + 8)
                entry += step
            at += more

    def offers(self) -> Iterator[Version]:
        """The versions that the file defines for others."""
        table = self.section(SHT_VERDEF)
        at, more = (table.offset, 1) if table else (0, 0)
        while more:
            _, _, index, _, _, first, more = self.numbers("<HHHHIII", at)
            yield Version("", self.text(self.numbers("<I", at + first)[0]), index, at + 8, at + first)
            at += more

    def symbols(self, number: int | None = None) -> Iterator[Symbol]:
        """The dynamic symbols; only those of one version if its number is given."""
        table, versions = self.section(SHT_DYNSYM), self.section(SHT_VERSYM)
        if not table or not versions:
            return
        for at in range(table.size // 24):
            name, _, _, place = self.numbers("<IBBH", table.offset + 24 * at)
            version_at = versions.offset + 2 * at
            if number is None or self.numbers("<H", version_at)[0] & 0x7FFF == number:
                yield Symbol(self.text(name), bool(place), version_at)

    def rename(self, version: Version, offset: int) -> None:
        """Lets a version entry bear the name at this offset of the string table."""
        self.put("<I", version.hash_at, elf_hash(self.text(offset)))
        self.put("<I", version.name_at, offset)

    def kernel_notes(self) -> Iterator[int]:
        """Where the file says which Linux it needs at least: three numbers each (GNU ABI note)."""
        for segment in self.segments:
            at = segment.offset
            while segment.kind == PT_NOTE and at < segment.offset + segment.size:
                name_size, size, kind = self.numbers("<III", at)
                if kind == NT_GNU_ABI_TAG and self.data[at + 12 : at + 16] == b"GNU\0" and self.numbers("<I", at + 16) == (0,):
                    yield at + 20
                at += 12 + (name_size + 3 & ~3) + (size + 3 & ~3)


def elf_files(top: str) -> Iterator[str]:
    """The ELF files at or below a path, sorted; links are not followed."""
    paths = [os.path.join(folder, file) for folder, _, files in os.walk(top) for file in files] or [top]
    for path in sorted(paths):
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                if is_elf(file.read(6)):
                    yield path
