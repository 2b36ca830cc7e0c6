"""Files that are written whole or not at all, and texts that may be paths."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from adacache_kernels.schedule import files

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    for content in ("old", "new, and longer", b"\0\xff"):
        files.write_whole(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["it.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interruption_leaves_the_old_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.json"
    path.write_text("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os if call == "fsync" else Path, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["it.json"]


def test_a_full_disk_is_named_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: files.write_whole(path, "new"), lambda: files.check_writable(path)):
        with pytest.raises(OSError, match=r"^cannot write .*it\.json: No space left") as error:
            write()
        assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and names(tmp_path) == ["it.json"]


@POSIX
def test_a_file_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the content is made durable, then the name in the folder."""
    path, synced = tmp_path / "it.json", []

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((stat.S_ISDIR(status.st_mode) or status.st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    files.write_whole(path, "new")
    assert synced == [(len("new"), False), (True, True)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    files.write_whole(tmp_path / "it.json", "new")
    assert set(Path("/proc/self/fd").iterdir()) == before


@POSIX
def test_mode_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "it.json", tmp_path / "link.json"
    before = os.umask(0o027)
    try:
        files.write_whole(path, "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link.symlink_to(path)
    files.write_whole(link, "newer")
    assert link.is_symlink() and path.read_text() == "newer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_the_longest_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".json")
    files.write_whole(path, "new")
    assert path.read_text() == "new"


@POSIX
def test_a_device_stays_a_device() -> None:
    files.write_whole("/dev/null", "new")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError, match="it is a folder or a device"):
        files.check_writable("/dev/null")


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "it.json")
    assert names(tmp_path) == []
    (tmp_path / "it.json").write_text("old")
    files.check_writable(tmp_path / "it.json")
    assert (tmp_path / "it.json").read_text() == "old" and names(tmp_path) == ["it.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "it is a folder"),
        ("none/it.json", "there is no folder"),
        ("x" * 300, "File name too long"),
        ("x\0", "null"),
        ("file/it.json", "there is no folder|Not a directory"),
    ],
)
def test_what_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((OSError, ValueError), match=f"cannot write .*({message})"):
        files.check_writable(f"{tmp_path}/{name}")


LONG = "a white six moving fast " * 20


@pytest.mark.parametrize(
    "text", [LONG, "x" * 256, "two\nlines", "a\0b", "", "\udcff", "x/" * 3000, "a" * 10**6]
)
def test_a_text_that_is_no_path(text: str) -> None:
    assert not files.is_file(text)
    assert not files.may_be_path(f"{text}\n.txt")


def test_a_text_that_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    assert files.may_be_path(str(path)) and not files.is_file(path)
    path.touch()
    assert files.may_be_path(str(path)) and files.is_file(str(path))
    assert not files.is_file(tmp_path)
    assert not files.may_be_path(str(path / "below.txt")) and not files.may_be_path(f"{LONG}.txt")
    assert sys.platform != "linux" or files.may_be_path("/dev/null")
