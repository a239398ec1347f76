"""Walks one huge JSON array and hands out the bytes of each element, without decoding.

Streaming parsers were tried and change what they read: ijson 3.6 (yajl) silently turns a lone surrogate escape into
"?", and refuses integers beyond 64 bits as soon as floats are asked for. Cutting the array into elements and giving
each whole to msgspec keeps every number and refuses what is not Unicode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from server.log.formats import FormatError

CHUNK = 1 << 20
ELEMENT_LIMIT = 1 << 30

Progress = Callable[[int], None]

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_QUOTE, _COMMA = b'",'
_OPENING, _CLOSING = b"[{", b"]}"
# Up to the next bracket (at the top also comma), stepping over complete strings; an unfinished string stops the match
# at its quote. What repeats is possessive, so that a match never backtracks; but for groups, which Python 3.11 before
# 3.11.5 matches wrongly then (CPython's issue 106052), and where there is nothing to try again.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_NESTED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*", re.DOTALL)
_TOP = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*", re.DOTALL)


def read_elements(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, bytes]]:
    """The elements of the array in a file as (number from 1, bytes of its JSON, not yet validated).

    A file that holds one object instead of an array yields that object. `progress` is told the bytes of each read.
    Raises FormatError where the file is no array, is cut off, goes on after its end, or holds an element over 1 GiB.
    """
    with path.open("rb") as file:

        def read(size: int) -> bytes:
            chunk = file.read(size)
            if progress is not None and chunk:
                progress(len(chunk))
            return chunk

        data = read(CHUNK).removeprefix(_BOM).lstrip(_SPACE)
        while not data:
            chunk = read(CHUNK)
            if not chunk:
                raise FormatError(path, "start", "the file is empty; a JSON array was expected")
            data = chunk.lstrip(_SPACE)
        if data[0] not in _OPENING:
            raise FormatError(path, "start", f"found {data[:20]!r} where a JSON array '[' was expected")
        is_array = data[0] == _OPENING[0]
        depth = begin = position = 1 if is_array else 0
        number = 1
        while True:
            position = _end_of_match(_TOP if is_array and depth == 1 else _NESTED, data, position)
            if position == len(data) or data[position] == _QUOTE:
                if len(data) - begin > ELEMENT_LIMIT:
                    raise FormatError(path, f"record {number}", f"over {ELEMENT_LIMIT} bytes: is a quote missing?")
                # Reading as much again as is held keeps the work linear however long the element or string is.
                more = read(max(CHUNK, len(data) - begin))
                if not more:
                    raise FormatError(path, f"record {number}", "the file ends before the array does: is it cut off?")
                data, position, begin = data[begin:] + more, position - begin, 0
                continue
            found = data[position]
            position += 1
            if found in _OPENING:
                depth += 1
            elif found in _CLOSING:
                depth -= 1
                if depth == 0:
                    break
            elif found == _COMMA:
                yield number, _element(path, number, data[begin : position - 1])
                number += 1
                begin = position
        if not is_array:
            yield number, data[begin:position]
        elif number > 1 or data[begin : position - 1].strip(_SPACE):
            yield number, _element(path, number, data[begin : position - 1])
        if is_array and found != _CLOSING[0]:
            raise FormatError(path, f"after record {number}", "the array is closed by '}' instead of ']'")
        rest = data[position:]
        while rest:
            if rest.strip(_SPACE):
                raise FormatError(path, f"after record {number}", f"more text follows: {rest.strip(_SPACE)[:20]!r}")
            rest = read(CHUNK)


def _end_of_match(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    match = pattern.match(data, position)
    assert match is not None, "the patterns match the empty string"
    return match.end()


def _element(path: Path, number: int, data: bytes) -> bytes:
    element = data.strip(_SPACE)
    if not element:
        raise FormatError(path, f"record {number}", "there is nothing between two commas or a comma and ']'")
    return element
