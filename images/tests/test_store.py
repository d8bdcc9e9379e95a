"""The store: whole objects or none, whoever dies, whoever else builds, however full the disk is."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from images.errors import CacheUnusable, DiskFull
from images.store import MANIFEST, Store, cache_root, manifest_of
from images.tests.crashing_builder import FILES, KEY, NAME, POINTS


@contextmanager
def builder(root: Path, stop_at: str) -> Iterator[subprocess.Popen[bytes]]:
    """A builder process that has reached `stop_at` (or runs on, when that is no point)."""
    argv = [sys.executable, "-m", "images.tests.crashing_builder", str(root), stop_at]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if stop_at in POINTS:
                assert process.stdout is not None
                assert process.stdout.readline().decode().strip() == stop_at
            yield process
        finally:
            process.kill()


def fill(scratch: Path) -> Mapping[str, Any]:
    (scratch / "folder").mkdir()
    for path, data in FILES.items():
        (scratch / path).write_bytes(data)
    return {"kind": "toy", "digest": "0123", "built": "", "size": 1, "packages": {}}


def is_whole(path: Path) -> bool:
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    manifest = files.pop(MANIFEST, None)
    return manifest is not None and files == FILES


@pytest.mark.parametrize("point", POINTS)
def test_a_builder_killed_anywhere_leaves_a_whole_object_or_none(point: str, tmp_path: Path) -> None:
    with builder(tmp_path, point) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
    store = Store(tmp_path)
    assert (store.find(NAME) is not None) == (POINTS.index(point) >= POINTS.index("renamed"))
    assert (store.current(KEY) is not None) == (point == "done")
    assert all(is_whole(path) for path in store.objects())
    with builder(tmp_path, "") as process:  # the next one finds its way
        assert process.wait(20) == 0
    found = store.current(KEY)
    assert found is not None
    assert is_whole(found)
    store.sweep()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_a_living_builder_makes_is_not_swept(tmp_path: Path) -> None:
    with builder(tmp_path, "half") as process:
        assert Store(tmp_path).sweep() == []
        assert len(list((tmp_path / "tmp").glob("*/folder/*"))) == len(FILES) // 2 + 1
        process.communicate(b"x", timeout=20)
        assert process.returncode == 0
    assert is_whole(tmp_path / "store" / NAME)


def test_of_two_builders_one_builds_and_the_other_waits_for_it(tmp_path: Path) -> None:
    with builder(tmp_path, "half") as first:
        argv = [sys.executable, "-m", "images.tests.crashing_builder", str(tmp_path), "begun"]  # says so if it builds
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.5)  # it does not end while the first holds the lock
            first.communicate(b"x", timeout=20)
            said, _ = second.communicate(timeout=20)
    assert (first.returncode, second.returncode, said) == (0, 0, "")
    assert is_whole(tmp_path / "store" / NAME)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_lock_of_a_killed_builder_is_free(tmp_path: Path) -> None:
    with builder(tmp_path, "half") as first, builder(tmp_path, "") as second:
        first.send_signal(signal.SIGKILL)
        assert second.wait(20) == 0
    assert is_whole(tmp_path / "store" / NAME)


def test_two_that_build_the_same_at_once_without_a_lock_end_with_one_object(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fill_while_another_publishes(scratch: Path) -> Mapping[str, Any]:
        Store(tmp_path).build(lambda _: NAME, fill)
        return fill(scratch)

    assert is_whole(store.build(lambda _: NAME, fill_while_another_publishes))
    assert store.objects() == [tmp_path / "store" / NAME]
    assert list((tmp_path / "tmp").iterdir()) == []


BUSY = """
import sys
from pathlib import Path
from images.store import Store
with Store(Path(sys.argv[1])).scratch() as folder:
    (folder / "runs").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_of_a_process_that_was_killed_goes_when_the_next_one_is_made(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as busy:
        assert busy.stdout is not None
        used = Path(busy.stdout.readline().strip())
        with Store(tmp_path).scratch() as own:
            assert own.is_dir()
            assert (used / "runs").is_dir()  # whoever made it lives
        assert not own.exists()
        busy.send_signal(signal.SIGKILL)
        busy.wait(20)
        assert used.exists()
    with Store(tmp_path).scratch():
        assert not used.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_failing_builder_leaves_nothing(tmp_path: Path) -> None:
    def fail(scratch: Path) -> Mapping[str, Any]:
        fill(scratch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).build(lambda _: NAME, fail)
    assert Store(tmp_path).objects() == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    def too_much(scratch: Path) -> Mapping[str, Any]:
        (scratch / "big").write_bytes(bytes(100_000))
        return {}

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(DiskFull, match="NETPOLL_HARNESS_CACHE"):
            Store(tmp_path).build(lambda _: NAME, too_much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "tmp").iterdir()) == []


FULL_DISK = """
import sys
from pathlib import Path
from images.errors import DiskFull
from images.store import Store
def fill(scratch):
    for number in range(100):
        (scratch / str(number)).write_bytes(bytes(100_000))
    return {}
root = Path(sys.argv[1])
try:
    Store(root).build(lambda _: "toy", fill)
except DiskFull as error:
    print(error.message, "|", [str(path) for path in root.glob("*/*")])
"""


def test_a_full_file_system_is_said_and_left_empty(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    argv = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c", mount, FULL_DISK]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip("no mount namespace can be had here")
    assert "no room left in" in done.stdout, done.stderr
    assert done.stdout.rstrip().endswith("| []")


@pytest.mark.parametrize("name", ["store", "tmp", "locks", "current"])
def test_a_file_in_the_way_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("in the way")

    def build_and_point() -> None:
        store = Store(tmp_path)
        with store.lock(KEY):
            store.build(lambda _: NAME, fill)
            store.point(KEY, NAME)

    with pytest.raises(CacheUnusable, match=f"{tmp_path / name} cannot be used"):
        build_and_point()


def test_an_object_in_use_is_not_removed(tmp_path: Path) -> None:
    with builder(tmp_path, "done"):
        user = Store(tmp_path)
        path = tmp_path / "store" / NAME
        assert Store(tmp_path).remove(path) is False  # the builder process still has it
        assert is_whole(path)
        assert user.current(KEY) == path
    assert user.remove(path) is False
    assert Store(tmp_path).remove(path) is False
    user.release()
    assert Store(tmp_path).remove(path) is True
    assert user.current(KEY) is None
    assert not path.exists()


def test_a_pointer_to_an_object_that_is_gone_is_no_object(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.point(KEY, "gone")
    assert store.current(KEY) is None


def test_a_damaged_manifest_is_said(tmp_path: Path) -> None:
    path = Store(tmp_path).build(lambda _: NAME, fill)
    (path / MANIFEST).write_text("{")
    with pytest.raises(CacheUnusable, match="cannot be read"):
        manifest_of(path)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"NETPOLL_HARNESS_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/c"}, Path("/c/netpoll-harness")),
        ({}, Path.home() / ".cache/netpoll-harness"),
    ],
    ids=["own", "xdg", "home"],
)
def test_where_the_cache_is(env: dict[str, str], expected: Path) -> None:
    assert cache_root(env) == expected


def test_a_cache_path_that_no_option_can_carry_is_refused() -> None:
    with pytest.raises(CacheUnusable, match="without such characters"):
        cache_root({"NETPOLL_HARNESS_CACHE": "/a:b,c"})
