"""Files that are written as a whole or not at all, and texts that may be the path of one."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROOF = b" " * 4096
"""Content that shows that a file can be written. A full disk still takes an empty file."""


def is_file(path: str | Path) -> bool:
    """Return True if there is a file at `path`; False also for a text that cannot be a path."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # Such as a name of over 255 bytes, or with a NUL.
        return False


def may_be_path(text: str) -> bool:
    """Return False if a text is too long for a path, or has characters that no file name has."""
    if not text.isprintable():
        return False
    try:
        Path(text).stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return True


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file. After an interruption, the old content is there or the new one, never a part.

    Args:
        path: the file. A link stays a link. A device or a pipe is written to as it is.
        content: bytes, or a text that is written in UTF-8.

    Raises:
        OSError: the file cannot be written. The message names it.
    """
    data = content.encode() if isinstance(content, str) else content
    with _named_errors(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        with _temporary_file(target, data) as temporary:
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        _sync_folder(target.parent)


def check_writable(path: str | Path) -> None:
    """Check that `write_whole` can write a regular file, without a change of it.

    Raises:
        OSError: it cannot. The message names the file and the reason.
    """
    with _named_errors(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise OSError(0, "it is a folder or a device; name a file")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, "it is read-only")
        if not target.parent.is_dir():
            raise FileNotFoundError(2, f"there is no folder {Path(path).parent}")
        with _temporary_file(target, PROOF):
            pass


@contextmanager
def _temporary_file(target: Path, data: bytes) -> Iterator[Path]:
    """Write a file next to `target`, yield its path, and remove it unless it was moved."""
    # Its own short name: with a suffix, the name of the target could become too long.
    temporary = target.with_name(f".adacache-{secrets.token_hex(8)}.part")
    try:
        # By open, the mode follows the umask; the modules for temporary files set it to 0600.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name in a folder durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # Some file systems refuse this for folders.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _named_errors(path: str | Path) -> Iterator[None]:
    """Name `path` in errors of the system, which name the temporary file."""
    try:
        yield
    except OSError as error:
        named = type(error)(f"cannot write {path}: {error.strerror or error}")
        named.errno = error.errno
        raise named from error
    except ValueError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error}") from error
