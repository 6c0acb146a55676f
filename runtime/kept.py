"""Stored files as a reader of a bundle sees them: as they were written, or, in a packed copy, gzipped beside the name.

`rows.jsonl` may lie there as `rows.jsonl.gz` (RFC 1952). Every function takes the name without `.gz`, the file itself comes
first where both exist, and hashes are of the content that was written, whichever way it is kept.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import zlib
from pathlib import Path

from epc.compiler.contract.canonical import sha256_file


def gzipped(file: Path) -> Path:
    """Where a packed copy keeps it."""
    return file.with_name(f"{file.name}.gz")


def is_there(file: Path) -> bool:
    return file.is_file() or gzipped(file).is_file()


def read_bytes(file: Path) -> bytes:
    """Raises FileNotFoundError where neither form exists, OSError for what cannot be read or unpacked."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        packed = gzipped(file)
        if not packed.exists():
            raise
    try:
        return gzip.decompress(packed.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise OSError(errno.EIO, "the gzipped file is cut off or altered", str(packed)) from None


def read_text(file: Path) -> str:
    """UTF-8. Raises as `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(file).decode("utf-8")


def sha256(file: Path) -> str:
    """Of the content as it was written. Raises as `read_bytes`."""
    return sha256_file(file) if file.is_file() else hashlib.sha256(read_bytes(file)).hexdigest()
