"""The folder that dumps go to: what names lead where, what is left after each way to end, and a disk that is full."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from guest.netpoll.clients.dump.sink import Kept, SinkError
from guest.netpoll.tool.dumpdir import DumpDir, DumpFile

PEER = "10.0.0.2"


@pytest.fixture
def crash(tmp_path: Path) -> Path:
    folder = tmp_path / "crash"
    folder.mkdir()
    return folder


def files(folder: Path) -> set[str]:
    """Every file below, without the dumps' times."""
    return {
        str(path.relative_to(folder)).replace(path.parent.name, "DUMP") for path in folder.rglob("*") if path.is_file()
    }


def opened(crash: Path, path: str | None = None, name: int = 0) -> tuple[DumpFile, list[str]]:
    said: list[str] = []
    return DumpDir(crash, said.append).open(PEER, name, path, "debugnet"), said


def test_a_dump_that_is_whole(crash: Path) -> None:
    dump, said = opened(crash)
    dump.write(100_000, b"end")
    dump.log("a line")
    assert files(crash) == {"DUMP/vmcore-incomplete", "DUMP/log", "DUMP/dump.json", "DUMP/reserve"}
    dump.finish(200_000, "vmcore", exact=False)
    assert files(crash) == {"DUMP/vmcore", "DUMP/log", "DUMP/dump.json"}
    [vmcore] = crash.glob("*/vmcore")
    assert vmcore.read_bytes() == bytes(100_000) + b"end" + bytes(99_997)
    assert vmcore.stat().st_blocks * 512 < 100_000, "zeros take space"
    assert vmcore.stat().st_mode & 0o777 == 0o600
    assert [line.split(" ", 2)[2] for line in (vmcore.parent / "log").read_text().splitlines()] == [
        "the dump begins",
        "a line",
        "the dump is complete: 200000 bytes as vmcore",
    ]
    assert [line.partition(": ")[2] for line in said] == [
        "the dump begins",
        "the dump is complete: 200000 bytes as vmcore",
    ]


@pytest.mark.parametrize(
    ("length", "exact", "size"), [(0, False, 5), (3, False, 5), (3, True, 3), (0, True, 5), (9, True, 9)]
)
def test_the_length_that_a_header_gives(crash: Path, length: int, exact: bool, size: int) -> None:
    dump, _ = opened(crash)
    dump.write(0, b"12345")
    dump.finish(length, "vmcore", exact=exact)
    assert next(crash.glob("*/vmcore")).stat().st_size == size


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../..", "/etc", "a//b", ".", "./a", "a/./b", "a\0b", "x" * 300, "a/" * 600 + "a", "missing", "file",
     "link", "link/inside", "a/up", "~root"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_not_followed(crash: Path, tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    (outside / "inside").mkdir(parents=True)
    (crash / "a" / "b").mkdir(parents=True)
    (crash / "file").touch()
    (crash / "link").symlink_to(outside)
    (crash / "a" / "up").symlink_to("../..")
    dump, said = opened(crash, path)
    dump.finish(1, "vmcore", exact=False)
    assert len(list(crash.glob(f"{PEER}-*/vmcore"))) == 1
    assert [p.name for p in outside.rglob("*")] == ["inside"]
    assert "goes to the one that is for all" in said[0]


@pytest.mark.parametrize("path", ["a", "a/b", "a/b/", "ö"])
def test_a_path_below(crash: Path, path: str) -> None:
    (crash / path).mkdir(parents=True)
    opened(crash, path)[0].finish(1, "vmcore", exact=False)
    assert len(list((crash / path).glob(f"{PEER}-*/vmcore"))) == 1


def test_two_dumps_in_one_second_have_folders_of_their_own(crash: Path) -> None:
    for _ in range(5):
        opened(crash)[0].finish(1, "vmcore", exact=False)
    assert len(list(crash.glob("*/vmcore"))) == 5


class TestResuming:
    def test_what_there_is(self, crash: Path) -> None:
        store = DumpDir(crash, lambda _: None)
        assert store.find(PEER, 7, None) is Kept.NOTHING
        dump = store.open(PEER, 7, None, "debugnet")
        dump.write(0, b"before")
        assert (store.find(PEER, 7, None), store.find(PEER, 8, None), store.find("10.0.0.20", 7, None)) == (
            Kept.INCOMPLETE,
            Kept.NOTHING,
            Kept.NOTHING,
        )
        dump.keep(b"state")
        dump.abandon("the server was stopped", partial=False)
        again = store.open(PEER, 7, None, "debugnet")
        assert again.kept() == b"state"
        again.write(6, b" after")
        again.finish(0, "vmcore", exact=False)
        assert store.find(PEER, 7, None) is Kept.COMPLETE
        assert files(crash) == {"DUMP/vmcore", "DUMP/log", "DUMP/dump.json"}
        assert next(crash.glob("*/vmcore")).read_bytes() == b"before after"

    def test_what_ended_early_for_good_is_not_resumed(self, crash: Path) -> None:
        store = DumpDir(crash, lambda _: None)
        store.open(PEER, 7, None, "debugnet").abandon("the disk is full", partial=True)
        assert store.find(PEER, 7, None) is Kept.NOTHING

    def test_without_a_name_nothing_is(self, crash: Path) -> None:
        store = DumpDir(crash, lambda _: None)
        for _ in range(2):
            store.open(PEER, 0, None, "debugnet").abandon("silent", partial=False)
        assert len(list(crash.glob("*/vmcore-incomplete"))) == 2

    @pytest.mark.parametrize("planted", ["link", "hard link", "folder", "fifo"])
    def test_a_file_that_is_not_ours_is_not_written(self, crash: Path, tmp_path: Path, planted: str) -> None:
        store = DumpDir(crash, lambda _: None)
        store.open(PEER, 7, None, "debugnet").abandon("silent", partial=False)
        [vmcore] = crash.glob("*/vmcore-incomplete")
        vmcore.unlink()
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        make = {"link": vmcore.symlink_to, "hard link": vmcore.hardlink_to}
        if planted in make:
            make[planted](victim)
        elif planted == "folder":
            vmcore.mkdir()
        else:
            os.mkfifo(vmcore)
        with pytest.raises(SinkError, match="cannot make its file"):
            store.open(PEER, 7, None, "debugnet")
        assert victim.read_bytes() == b"precious"

    @pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"name": "7"}', "\0" * 5000])
    def test_a_description_that_is_none(self, crash: Path, text: str) -> None:
        store = DumpDir(crash, lambda _: None)
        store.open(PEER, 7, None, "debugnet").abandon("silent", partial=False)
        next(crash.glob("*/dump.json")).write_text(text)
        assert store.find(PEER, 7, None) is Kept.NOTHING

    def test_the_description(self, crash: Path) -> None:
        opened(crash, name=7)
        assert json.loads(next(crash.glob("*/dump.json")).read_text()) == {
            "protocol": "debugnet",
            "client": PEER,
            "name": 7,
        }


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DumpDir(tmp_path / "missing", lambda _: None)


def test_what_cannot_be_written_is_said(crash: Path) -> None:
    dump, said = opened(crash)
    os.close(dump._fd)
    dump._fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(SinkError, match="cannot write: No space left on device"):
        dump.write(0, b"x")
    dump.abandon("cannot write: No space left on device", partial=True)
    assert said[-1].endswith("the dump ends early, as vmcore-partial: cannot write: No space left on device")
    assert files(crash) == {"DUMP/vmcore-partial", "DUMP/log", "DUMP/dump.json"}
