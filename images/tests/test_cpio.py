"""The cpio writer: read back by a reader written from the format's description, and by cpio(1)."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import images
from images.cpio import Entry, character_device, folder, regular, symlink, write_archive

FIELDS = "ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check".split()  # noqa: SIM905

ENTRIES = {
    "usr/bin/busybox": regular(b"\x7fELF" + b"x" * 1001, 0o755),
    "usr/bin/sh": symlink("busybox"),
    "etc/passwd": regular(b"root:x:0:0::/:/bin/sh\n"),
    "etc/shadow": regular(b"", 0o600),
    "tmp": folder(0o1777),
    "dev/console": character_device(5, 1),
}


def archive(entries: dict[str, Entry]) -> bytes:
    out = io.BytesIO()
    assert write_archive(out, entries) == out.tell()
    return out.getvalue()


def read_archive(data: bytes) -> dict[str, tuple[dict[str, int], bytes]]:
    """buffer-format.rst: magic, 13 fields of 8 hex digits, name, padding, data, padding; until TRAILER!!!."""
    found: dict[str, tuple[dict[str, int], bytes]] = {}
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        values = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        header = dict(zip(FIELDS, values, strict=True))
        name = data[at + 110 : at + 110 + header["namesize"]]
        assert name.endswith(b"\0")
        start = (at + 110 + header["namesize"] + 3) // 4 * 4
        at = (start + header["filesize"] + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            continue
        found[name[:-1].decode()] = (header, data[start : start + header["filesize"]])
    return found


def test_everything_is_read_back() -> None:
    found = read_archive(archive(ENTRIES))
    assert list(found) == sorted({*ENTRIES, "usr", "usr/bin", "etc", "dev"})
    for path, entry in ENTRIES.items():
        header, data = found[path]
        assert (header["mode"], data) == (entry.mode, entry.data)
        assert (header["rdevmajor"], header["rdevminor"]) == entry.rdev
        assert (header["uid"], header["gid"], header["mtime"]) == (0, 0, 0)


def test_parents_come_before_what_is_in_them() -> None:
    paths = list(read_archive(archive({"a/b/c": regular(b""), "a-b": regular(b""), "a/b": folder(0o700)})))
    assert paths.index("a") < paths.index("a/b") < paths.index("a/b/c")


def test_the_same_entries_give_the_same_bytes(tmp_path: Path) -> None:
    file = tmp_path / "busybox"
    file.write_bytes(b"\x7fELF" + b"x" * 1001)
    os.utime(file, (1, 1))
    reordered = dict(reversed({**ENTRIES, "usr/bin/busybox": regular(file, 0o755)}.items()))
    assert archive(reordered) == archive(ENTRIES)


def test_archives_can_be_joined() -> None:
    joined = archive(ENTRIES) + archive({"etc/passwd": regular(b"later"), "opt/x": regular(b"y")})
    found = read_archive(joined)
    assert found["etc/passwd"][1] == b"later"
    assert found["opt/x"][1] == b"y"
    assert len(archive(ENTRIES)) % 4 == 0


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9}){0,3}", fullmatch=True), st.binary(max_size=99), max_size=9)
)
def test_any_content_is_read_back(files: dict[str, bytes]) -> None:
    plain = {path: data for path, data in files.items() if not any(other.startswith(path + "/") for other in files)}
    found = read_archive(archive({path: regular(data) for path, data in plain.items()}))
    assert {path: data for path, (header, data) in found.items() if stat.S_ISREG(header["mode"])} == plain


def test_cpio_extracts_what_was_written(tmp_path: Path, tools: images.Tools) -> None:
    entries = {path: entry for path, entry in ENTRIES.items() if not stat.S_ISCHR(entry.mode)}
    subprocess.run([*tools.argv("cpio"), "-idm", "--quiet"], input=archive(entries), cwd=tmp_path, check=True)
    assert (tmp_path / "usr/bin/busybox").read_bytes() == ENTRIES["usr/bin/busybox"].data
    assert stat.S_IMODE((tmp_path / "usr/bin/busybox").stat().st_mode) == 0o755
    assert os.readlink(tmp_path / "usr/bin/sh") == "busybox"
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((tmp_path / "etc/shadow").stat().st_mode) == 0o600
