"""Bodies of requests: forms and JSON, read in pieces with limits of our own; nothing is ever kept in temporary files."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from ippd.domain.submission import Part
from ippd.errors import Invalid, TimedOut, TooLarge, UnsupportedMedia

PIECE = 256 << 10  # bytes read at once; the parser takes more than 4 GB/s of any content in such pieces
EARLY = 64 << 10  # bytes read as they arrive: the fields before a file must not wait for what comes of the file
HEAD = 1 << 10  # bytes that a form may have around each part, on the average
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^\s;]+)", re.IGNORECASE)
READ = "multipart/form-data, application/x-www-form-urlencoded or application/json"


class Limits:
    """What a form may hold: bytes of one text, bytes of all texts together, number of parts."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.text: int = settings["limits.text_bytes"]
        self.form: int = settings["limits.form_bytes"]
        self.fields: int = settings["limits.fields"]


class Body:
    """The bytes of a request's body, counted: `taken`."""

    def __init__(self, stream: Any, announced: int | None) -> None:
        """`stream` is wsgi.input, with read(size) and read1(size); `announced` the Content-Length, None for chunks."""
        self._stream, self.announced, self.taken = stream, announced, 0

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises TimedOut when it comes too slowly, Invalid when it ends too early or is broken."""
        while True:
            try:
                piece = self._stream.read(PIECE) if self.taken >= EARLY else self._stream.read1(EARLY)
            except TimeoutError:
                raise TimedOut("the body came too slowly") from None
            except ConnectionError:
                raise Invalid("the connection ended before the body did") from None
            except ValueError as error:
                raise Invalid(f"the body is broken: {error}") from None
            if not piece:
                break
            self.taken += len(piece)
            yield piece
        if self.announced is not None and self.taken < self.announced:
            raise Invalid("the body is shorter than announced")

    def whole(self, most: int) -> bytes:
        """All bytes, at most `most`. Raises TooLarge as soon as there are more, or more are announced."""
        if (self.announced or 0) > most:
            raise TooLarge(f"a form without files may have at most {most} bytes")
        held = bytearray()
        for piece in self.pieces():
            held += piece
            if len(held) > most:
                raise TooLarge(f"a form without files may have at most {most} bytes")
        return bytes(held)


def parts_of(body: Body, content_type: str, limits: Limits) -> Iterator[Part]:
    """The parts of a form in the order sent: texts are "param", files are "file". Raises UnsupportedMedia for other bodies."""
    kind, options = parse_options_header(content_type)
    if kind == "multipart/form-data":
        return Form(body, options.get("boundary", ""), limits).parts()
    if kind == "application/x-www-form-urlencoded":
        return _texts(_urlencoded(body.whole(limits.form), limits), limits)
    if kind == "application/json":
        return _texts(_flat(json_object(body, limits)), limits)
    if not kind and next(body.pieces(), None) is None:
        return iter(())
    raise UnsupportedMedia(f"a body must be {READ}" + (f", not {kind[:100]}" if kind else ": the Content-Type is missing"))


class Form:
    """One multipart form, taken apart while it arrives (RFC 7578)."""

    def __init__(self, body: Body, boundary: str, limits: Limits) -> None:
        """Raises Invalid for a boundary that cannot be (RFC 2046 allows up to 70 characters; some clients use more)."""
        if not 0 < len(boundary) <= 200:
            raise Invalid("the Content-Type of the form names no boundary, so its parts cannot be told apart")
        self._body, self._limits = body, limits
        self._seen = self._held = self._texts = 0
        # Heads are read as Latin-1, which cannot fail: what they are in truth is found out in `_written`.
        self._parser = PushMultipartParser(boundary, header_charset="latin1", max_segment_count=limits.fields)
        self._events = self._parse()

    def parts(self) -> Iterator[Part]:
        """The parts. The value of a file must be read before the next part is asked for; what is left of it then is skipped."""
        for segment in self._events:
            assert isinstance(segment, MultipartSegment)
            name = _written(segment.name or "")
            filename = _extended_name(segment) or segment.filename
            if filename is None:
                yield Part("param", name, self._text(name))
                continue
            chunks = self._chunks()
            first = next(chunks, None)
            if first is None and not filename:
                continue  # a browser sends this for a file field in which no file was chosen
            yield Part("file", name, _chain(first, chunks), _written(filename) or "file")
            for _ in chunks:
                pass

    def _parse(self) -> Iterator[MultipartSegment | bytes | None]:
        """What the parser finds; its errors as ours."""
        try:
            for piece in self._body.pieces():
                for event in self._parser.parse(piece):
                    if isinstance(event, bytes):
                        self._held += len(event)
                    elif event is not None:
                        self._seen += 1
                    yield event
                if self._body.taken - self._held > self._limits.form + HEAD * self._seen:
                    raise TooLarge("there is too much in this form besides its fields and files")
            self._parser.close()
        except ParserLimitReached as error:
            raise TooLarge(f"a form may have at most {self._limits.fields} parts with short heads ({error})") from None
        except MultipartError as error:
            raise Invalid(f"the form is broken: {error}") from None

    def _chunks(self) -> Iterator[bytes]:
        """The bytes of the part that has just begun."""
        for event in self._events:
            if event is None:
                return
            assert isinstance(event, bytes)
            yield event

    def _text(self, name: str) -> str:
        held = bytearray()
        for chunk in self._chunks():
            held += chunk
            if len(held) > self._limits.text:
                raise TooLarge(f"the field '{name[:100]}' may have at most {self._limits.text} bytes")
        self._texts += len(held) + len(name)
        if self._texts > self._limits.form:
            raise TooLarge(f"the texts of a form may have at most {self._limits.form} bytes together")
        return _utf8(held, f"the field '{name[:100]}'")


def json_object(body: Body, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body. Raises Invalid for anything else, TooLarge past the limit of a form."""
    try:
        value = json.loads(body.whole(limits.form).decode(), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # refuses halves of surrogate pairs, which no store takes
    except RecursionError:
        raise Invalid("the JSON of the body is nested too deeply") from None
    except ValueError as error:
        raise Invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Invalid("the JSON of the body must be an object")
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


def _flat(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a JSON object as a form would have them: a list is a repeated field, null is a field left out."""
    for name, item in value.items():
        for single in item if isinstance(item, list) else [item]:
            if isinstance(single, dict | list):
                raise Invalid(fields={name: ["this must be a text"]})
            if single is not None:
                yield name, single if isinstance(single, str) else json.dumps(single)


def _urlencoded(body: bytes, limits: Limits) -> Iterable[tuple[str, str]]:
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=limits.fields)
    except UnicodeDecodeError:
        raise Invalid("the form is not percent-encoded UTF-8") from None
    except ValueError:
        raise TooLarge(f"a form may have at most {limits.fields} fields") from None


def _texts(pairs: Iterable[tuple[str, str]], limits: Limits) -> Iterator[Part]:
    for name, text in pairs:
        if len(text.encode()) > limits.text:
            raise TooLarge(f"the field '{name[:100]}' may have at most {limits.text} bytes")
        yield Part("param", name, text)


def _chain(first: bytes | None, rest: Iterable[bytes]) -> Iterator[bytes]:
    if first is not None:
        yield first
        yield from rest


def _utf8(raw: bytes | bytearray, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{what} is not UTF-8 text") from None


def _written(name: str) -> str:
    """A name as it was meant: browsers send plain UTF-8, some old clients Latin-1."""
    try:
        return name.encode("latin1").decode()
    except UnicodeError:
        return name


def _extended_name(segment: MultipartSegment) -> str | None:
    """The `filename*` of a part (RFC 5987), which some clients send and the parser does not know."""
    header = next((value for name, value in segment.headerlist if name == "Content-Disposition"), "")
    match = EXTENDED_NAME.search(QUOTED.sub('""', header))
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[2].strip('"')).decode(match[1])
    except UnicodeDecodeError:
        return None
