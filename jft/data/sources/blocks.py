# SPDX-License-Identifier: Apache-2.0
"""One pass over a text file, in blocks of whole records."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jft.data.sources.cache import unpack_gzip
from jft.types import InputError

CHUNK = 1 << 20  # bytes read at once
MAX_RECORD = 1 << 28  # bytes; a quote left open would read the file to its end
NEWLINE, QUOTE = ord("\n"), ord('"')
MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark, which some editors leave
SAVE_AS = "Save the file as UTF-8."
FOREIGN = {
    b"\xff\xfe": f"begins as UTF-16 or UTF-32 does; expected UTF-8. {SAVE_AS}",
    b"\xfe\xff": f"begins as UTF-16 does; expected UTF-8. {SAVE_AS}",
    b"\x1f\x8b": "is a gzip file; expected text. Let its name end in .gz.",
}


class Block(NamedTuple):
    """Whole records of a file, side by side."""

    data: bytes
    ends: np.ndarray  # int64 [R]: where each record ends in data, line end included
    offset: int  # of the first byte, in the file
    line: int  # of the first byte, counted from 1

    def line_at(self, position: int) -> int:
        """Return the line that a position in ``data`` lies in."""
        return self.line + self.data.count(b"\n", 0, position)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield where each record begins and ends in ``data``."""
        ends = self.ends.tolist()
        return zip([0, *ends[:-1]], ends, strict=True)


class TextScan:
    """Iterates once over a UTF-8 file, block by block, and checks its bytes.

    Args:
      path: the file; one whose name ends in ``.gz`` is unpacked into the cache.
      quoted: records end at line ends with an even number of ``"`` before them; else
        at every line end.

    Attributes:
      file: the file that is read, ``path`` or what it was unpacked to.
      content: after the pass, a digest of the bytes.

    Raises:
      InputError: if the file is absent, a folder or empty; while iterating, at a byte
        that is no UTF-8 text, by its line.
    """

    def __init__(self, path: str | Path, *, quoted: bool = False) -> None:
        self.path = Path(path)
        self.file = find_file(self.path)
        self.content = ""
        self._quoted = quoted

    def __iter__(self) -> Iterator[Block]:
        state = hashlib.blake2b(digest_size=16)
        held, offset, line = b"", 0, 1  # the beginning of a record, and its place
        with self.file.open("rb") as stream:
            while chunk := stream.read(max(CHUNK, len(held))):
                state.update(chunk)
                if not offset and not held:
                    chunk, offset = self._start(chunk)
                held += chunk
                ends = self._ends(held)
                if not len(ends):
                    self._check_length(held, line)
                    continue
                block = Block(held[: ends[-1]], ends, offset, line)
                held, offset = held[ends[-1] :], offset + int(ends[-1])
                line = block.line_at(len(block.data))
                self._check_bytes(block)
                yield block
        if held:  # the last line has no end
            block = Block(held, np.array([len(held)]), offset, line)
            self._check_bytes(block)
            yield block
        self.content = state.hexdigest()

    def _start(self, chunk: bytes) -> tuple[bytes, int]:
        for mark, what in FOREIGN.items():
            if chunk.startswith(mark):
                shown = " ".join(f"0x{byte:02x}" for byte in mark)
                raise InputError(f"{self.path}, line 1 (bytes {shown}) {what}")
        text = chunk.removeprefix(MARK)
        return text, len(chunk) - len(text)

    def _ends(self, data: bytes) -> np.ndarray:
        array = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(array == NEWLINE)
        if self._quoted:
            quotes = np.flatnonzero(array == QUOTE)
            ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        return ends + 1

    def _check_length(self, held: bytes, line: int) -> None:
        if len(held) > MAX_RECORD:
            raise InputError(
                f"{self.path}, line {line} begins a row of more than {MAX_RECORD:,} "
                "bytes. Close the quote that it opens, or break the line."
            )

    def _check_bytes(self, block: Block) -> None:
        if (at := block.data.find(b"\0")) >= 0:
            raise InputError(
                f"{self.path}, line {block.line_at(at)} holds a NUL byte (0x00): the "
                f"file is no text, or text in UTF-16. {SAVE_AS}"
            )
        try:
            block.data.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}, line {block.line_at(error.start)} is no UTF-8: "
                f"{error.reason} (byte 0x{block.data[error.start]:02x}); it may be "
                f"Latin-1 or Windows-1252. {SAVE_AS}"
            ) from error


def find_file(path: Path) -> Path:
    """Return the file to read: ``path``, or what its ``.gz`` is unpacked to.

    Raises:
      InputError: if the file is absent, a folder or empty.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        what = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise InputError(
            f"{path.absolute()} {what}; expected a file, one example a row. Check the "
            "path of the data."
        ) from error
    file = unpack_gzip(path) if path.suffix == ".gz" else path
    if not file.stat().st_size:
        raise InputError(f"{path} is empty; expected one example a row.")
    return file
