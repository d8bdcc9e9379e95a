"""Cases on a second machine over ssh: a real sshd in a network namespace of the test's own, with a cache of its own; evidence comes back."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import images
from harness.away import elsewhere, packed, plain, spread, unpack
from harness.run import Bench, load
from harness.tests.traces import make_ground
from images.process import argv_in_tree
from images.userland import ensure_userland

ROOT = Path(__file__).resolve().parents[2]


def test_a_case_comes_back_file_by_file(tmp_path: Path) -> None:
    there = tmp_path / "there" / "case[nic=e1000]"
    there.mkdir(parents=True)
    content = {"evidence.jsonl": b"{}\n" * 1000, "empty": b"", "case.pcapng": os.urandom(5000)}
    for name, data in content.items():
        (there / name).write_bytes(data)
    here = unpack(tmp_path / "here", there.name, packed(there))
    assert {path.name: path.read_bytes() for path in here.iterdir()} == content


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/etc/passwd", "a/b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="another machine sent"):
        plain(name)
    with pytest.raises(ValueError, match="another machine sent"):
        unpack(tmp_path, "case", {name: b""})


def test_what_xdist_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "testcases" / "send"
    folder.mkdir(parents=True)
    rest = ["--tx", "ssh=box//python=python3"]
    named, options = spread([f"{folder}::one"], rest)
    assert named == [f"{folder}::one"]
    assert options == ["--dist", "load", "--rsyncdir", str(folder.parent)]
    assert spread(["testcases"], ["-n", "2"]) == (["testcases"], [])
    assert elsewhere(rest)
    assert not elsewhere([*rest, "--tx=popen"])
    assert not elsewhere(["-n", "2"])
    assert not elsewhere([])


def script(path: Path, *words: str | Path) -> Path:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.guest
@pytest.mark.netns
@pytest.mark.skipif(
    os.geteuid() != 0, reason="sshd logs nobody in but its own user, and needs root's mounts for its own"
)
def test_cases_over_ssh_come_back_to_one_folder(bench: Bench, testcases: Path, tmp_path: Path) -> None:
    case = testcases / "send"
    for plan in load([case], bench.options)[:1]:
        bench.prepare(plan)
    other = make_ground(tmp_path / "other", bench.options.cache)  # the second machine's cache and temporary folder
    start = second_machine(tmp_path, {"NETPOLL_HARNESS_CACHE": str(other.cache), "TMPDIR": str(other.temporary)})
    results = tmp_path / "results"
    spec = f"ssh=second//python={sys.executable}//chdir={tmp_path / 'far'}//ssh_config={tmp_path / 'ssh_config'}"
    run = [sys.executable, "-m", "harness", "run", case, "-k", "virtio", "--results", results, "--tx", spec]
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "-n",
            "-p",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            f"{start} && {shlex.join(map(str, run))}",
        ],
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    said = done.stdout + done.stderr + (tmp_path / "sshd.log").read_text()
    assert done.returncode == 0, said
    words = [json.loads(path.read_text())["word"] for path in results.glob("*/verdict.json")]
    assert words == ["PASS"] * len(list((testcases / "send").glob("*.yaml"))), said
    for folder in (path.parent for path in results.glob("*/verdict.json")):
        assert {"evidence.jsonl", "plan.json", "case.pcapng", "console.log"} <= {path.name for path in folder.iterdir()}
    assert str(results) in done.stdout
    assert list(other.cache.glob("templates/*/template.json")), "the guests ran over there"
    assert not list(other.temporary.glob("netpoll-harness-away-*")), "and left nothing there"


def second_machine(folder: Path, environment: dict[str, str]) -> str:
    """An sshd of the userland's, with keys of its own; the shell words that start it inside a namespace."""
    userland = ensure_userland(images.Builder())
    tree = userland.tree
    lib = tree / "usr/lib/x86_64-linux-gnu"
    (folder / "bin").mkdir()
    (folder / "far").mkdir()
    script(folder / "bin" / "ssh", *argv_in_tree(lib, tree / "usr/bin/ssh"))
    for key in ("host", "user"):
        userland.tool("usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "known").write_text(f"[127.0.0.1]:2222 {(folder / 'host.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"Host second\n HostName 127.0.0.1\n Port 2222\n User {getpass.getuser()}\n IdentityFile {folder / 'user'}\n"
        f" UserKnownHostsFile {folder / 'known'}\n IdentitiesOnly yes\n"
    )
    variables = " ".join(f"{name}={value}" for name, value in environment.items())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:2222\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        f"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nSetEnv {variables}\n"
    )
    (folder / "passwd").write_text(
        Path("/etc/passwd").read_text() + "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    sshd = [*argv_in_tree(lib, tree / "usr/sbin/sshd"), "-r", "-f", folder / "sshd_config", "-E", folder / "sshd.log"]
    up = "from guest.links import set_up; set_up('lo')"
    return " && ".join(
        [
            f"mount --bind {folder / 'passwd'} /etc/passwd",
            "mount -t tmpfs none /run",
            "mkdir -m 755 /run/sshd",
            shlex.join([sys.executable, "-c", up]),
            shlex.join(map(str, sshd)),
        ]
    )
