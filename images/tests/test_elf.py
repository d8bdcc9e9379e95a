"""Reading ELF files: real programs of this machine, and damaged ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.elf import Elf, ElfError, functions, links, modinfo, notes
from images.errors import CacheUnusable
from images.rootfs import closure
from images.userland import LIB

PROGRAM = Path(shutil.which("apt-get") or "/bin/sh").resolve()


def test_needed_libraries_are_those_that_ldd_loads() -> None:
    told = subprocess.run(["ldd", str(PROGRAM)], capture_output=True, text=True, check=True).stdout
    loaded = dict(re.findall(r"(\S+) => (/\S+)", told))
    queue, seen = [PROGRAM], set[str]()
    while queue:
        for name in links(Elf(queue.pop().read_bytes())).needed:
            if name not in seen and name in loaded:
                seen.add(name)
                queue.append(Path(loaded[name]))
    assert seen == set(loaded)


def test_a_program_has_notes() -> None:
    assert any(note.owner == "GNU" and note.kind == 3 for note in notes(Elf(PROGRAM.read_bytes())))  # its build id


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(58)], ids=["empty", "script", "32 bit"]
)
def test_what_is_no_elf_file_is_refused(data: bytes) -> None:
    with pytest.raises(ElfError):
        Elf(data)


@given(st.integers(6, 3000), st.lists(st.tuples(st.integers(16, 2000), st.binary(min_size=1, max_size=8)), max_size=4))
def test_damage_raises_elf_error_and_nothing_else(length: int, patches: list[tuple[int, bytes]]) -> None:
    data = bytearray(PROGRAM.read_bytes()[:4096])
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    try:
        file = Elf(bytes(data[:length]))
        links(file), list(notes(file)), modinfo(file), list(functions(file))
    except ElfError:
        pass


def test_closure_follows_links_and_libraries(tmp_path: Path) -> None:
    library = Path("/") / LIB
    for name in ("libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"):
        (tmp_path / LIB).mkdir(parents=True, exist_ok=True)
        shutil.copy(library / name, tmp_path / LIB / f"{name}.real")
        (tmp_path / LIB / name).symlink_to(f"{name}.real")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert closure(tmp_path, ["script"]) == {"script"}
    found = closure(tmp_path, [f"{LIB}/libm.so.6"])
    names = {"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"}
    assert found == {f"{LIB}/{name}" for name in names} | {f"{LIB}/{name}.real" for name in names}
    (tmp_path / LIB / "libc.so.6").unlink()
    with pytest.raises(CacheUnusable, match=r"libm\.so\.6\.real needs libc\.so\.6"):
        closure(tmp_path, [f"{LIB}/libm.so.6"])
