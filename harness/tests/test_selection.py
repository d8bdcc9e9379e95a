"""Which cases a command line chooses, by pytest's own word."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.nics import MODELS
from harness.scenario.load import load_tree
from harness.selection import UnknownOption, WrongExpression, selected

TESTCASES = Path(__file__).resolve().parents[2] / "testcases"
PANICS = {f"crash/panic[nic={nic},crash={how}]" for nic in ("e1000", "virtio-net") for how in ("sysrq-c", "nmi")}

CHOICES: dict[str, tuple[list[str], set[str]]] = {
    "a-file": ([], PANICS),
    "by-keyword": (["-k", "virtio and nmi"], {"crash/panic[nic=virtio-net,crash=nmi]"}),
    "none-is-marked": (["-m", "long"], set()),
    "all-but-the-marked": (["-m", "not long"], PANICS),
    "with-workers": (["-n", "2", "-k", "e1000 and nmi"], {"crash/panic[nic=e1000,crash=nmi]"}),
    "what-pytest-refuses": (["--maxfail", "some"], set()),
}


@pytest.mark.parametrize(("options", "wanted"), CHOICES.values(), ids=CHOICES)
def test_what_pytest_would_run(options: list[str], wanted: set[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert selected([str(TESTCASES / "crash" / "panic.yaml"), *options, "-p", "no:cacheprovider"]) == wanted
    assert capfd.readouterr() == ("", ""), "it is asked quietly"


@pytest.mark.parametrize("option", ["-k", "-m"])
def test_an_expression_that_is_none_is_refused_before_workers_start(option: str) -> None:
    with pytest.raises(
        WrongExpression, match=rf"^Wrong expression passed to '{option}': a=b\(: .*\n  -> words joined by"
    ):
        selected([str(TESTCASES / "crash" / "panic.yaml"), option, "a=b(", "-n", "2", "-p", "no:cacheprovider"])


def test_an_option_that_nobody_knows_is_told_in_the_command_s_name() -> None:
    with pytest.raises(
        UnknownOption, match=r"^--no-such-option: neither `netpoll-harness run` nor pytest knows it\n  -> "
    ):
        selected([str(TESTCASES / "crash" / "panic.yaml"), "--no-such-option", "-p", "no:cacheprovider"])


def test_every_nic_model_is_in_the_long_testcases_and_every_link_is_tried() -> None:
    words = {loaded.scenario.params["nic"] for loaded in load_tree([TESTCASES / "nics" / "first-words.yaml"])}
    own = {word: model for word, model in MODELS.items() if not model.served}  # served ones have testcases of their own
    assert words == set(own)
    seen = {loaded.scenario.params["nic"] for loaded in load_tree([TESTCASES / "nics" / "set-link.yaml"])}
    unseen = {loaded.scenario.params["nic"] for loaded in load_tree([TESTCASES / "nics" / "unseen-link.yaml"])}
    assert seen == {word for word, model in own.items() if model.link}
    assert unseen == set(own) - seen
    assert all(loaded.scenario.marks == ("long",) for loaded in load_tree([TESTCASES / "nics"]))
