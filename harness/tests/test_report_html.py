"""The report's content: what is drawn from evidence, and that a guest cannot put anything of its own into it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.report import html, store
from harness.report.drawing import draw
from harness.report.timeline import DRAWN, NAMES, Timeline, timeline
from harness.report.view import view
from harness.tests.judge_evidence import PANIC_LINES, crashed, event, run, send
from harness.tests.report_cases import DELIVERED, KINDS, PARITY, make


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("report")
    for kind in KINDS:
        make(root, kind)
    return html.write(root).read_text()


def lanes(found: Timeline) -> dict[str, int]:
    """Names, and how much is in each."""
    return {lane.name: len(lane.above) + len(lane.below) + len(lane.marks) + len(lane.spans) for lane in found.lanes}


def test_every_verdict_is_there_with_its_word(report: str) -> None:
    text = Tags(report).text
    counted = "6 cases: 1 ERROR, 1 FAIL, 1 INCONCLUSIVE, 1 KNOWN_BUG, 2 PASS"
    assert counted in " ".join(text.split()), re.findall(r"6 cases.*", text)
    for said in (
        "QEMU ended by itself",
        "netpoll loses lines, tracked as 4711",
        "the console shows no panic",
        "of 12 console lines: 7 lost",
    ):
        assert said in text


def test_a_hostile_line_stays_text(report: str) -> None:
    found = Tags(report)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in found.tags}
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]
    assert '</td><script>document.title="owned"</script><img src=x onerror=alert(1)> \\x1b[2J \\u202egnp' in found.text


def test_nothing_comes_from_elsewhere(report: str) -> None:
    found = Tags(report)
    assert not [tag for tag, _ in found.tags if tag in ("link", "iframe", "object", "img")]
    assert not [attrs for _, attrs in found.tags if attrs.get("src")]
    links = [attrs["href"] or "" for tag, attrs in found.tags if tag == "a"]
    assert links
    assert all(link.startswith(("#", "./")) for link in links)
    policy = next(attrs["content"] or "" for tag, attrs in found.tags if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe-inline'; script-src 'sha256-" in policy


def test_anchors_and_files_exist(report: str, tmp_path: Path) -> None:
    found = Tags(report)
    ids = {attrs["id"] for _, attrs in found.tags if attrs.get("id")}
    assert {
        (attrs["href"] or "")[1:] for tag, attrs in found.tags if tag == "a" and (attrs["href"] or "").startswith("#")
    } <= ids
    folder = make(tmp_path, "fail", "odd name #1?")
    page = html.write(tmp_path).read_text()
    assert f'href="./{folder.name}/console.log"' in page.replace("%3D", "=").replace("%2C", ",")


def test_an_event_of_an_unknown_kind_has_a_lane() -> None:
    planned, events = KINDS["pass"]
    found = timeline(planned, events)
    assert lanes(found)["martian ray"] == 1
    assert [lane.spans[0].label for lane in found.lanes if lane.name == "n0 guest valve"] == ["ajar"]


def test_lost_lines_are_marked_where_the_console_printed_them() -> None:
    found = timeline(PARITY, crashed([*PANIC_LINES[:3], *PANIC_LINES[4:]]))
    marks = [mark for lane in found.lanes for mark in lane.marks if mark.style == "lost"]
    assert [(mark.t, mark.label) for mark in marks] == [(10.003, f"lost: {PANIC_LINES[3]}")]
    assert found.crash == 9.9
    assert found.close is not None
    assert found.close[0] < 9.9 < 10.01 < found.close[1]


def test_a_lost_message_of_our_stack_is_marked_where_it_was_handed_over() -> None:
    found = timeline(*KINDS["cut"])
    marked = {lane.name: len(lane.marks) for lane in found.lanes if any(mark.style == "lost" for mark in lane.marks)}
    assert marked == {"g handed over": 30}


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
KEYS = ("nic", "bond", "endpoint", "up", "state", "active", "stopped", "first", "last", "seq", "what", "of", "text", "name", "dir", "cpu", "where", "step", "title", "label")  # fmt: skip
EVENTS = st.builds(
    lambda t, kind, keys: event(t, *kind, **keys),
    st.floats(0, 1e5),
    st.sampled_from(
        [*DRAWN, *NAMES, ("guest", "sent"), ("guest", "dropped"), ("host", "rx"), ("inject", "x"), ("a", "b")]
    ),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=12))
@example([event(0.0, "qmp", "event", name=[])])
def test_whatever_a_guest_makes_us_write_down_can_be_drawn(events: list[dict[str, object]]) -> None:
    found = timeline(DELIVERED, events)
    picture = draw(found, 0.0, found.end, "x")
    assert picture.height == 24 * len(picture.rows)
    assert set(re.sub(r"\d", "", picture.svg.lower())) <= set('<>="/- .abcdefghijklmnopqrstuvwxyz')


def test_links_and_queues_are_states_and_counts() -> None:
    planned, events = KINDS["cut"]
    dropped = [event(1.2, "guest", "dropped", endpoint="g", label="g", seq=n, why="queue stopped") for n in range(3)]
    found = timeline(planned, [*events, *dropped])
    spans = {lane.name: [(span.begin, span.label) for span in lane.spans] for lane in found.lanes}
    assert spans["n0 cable"] == [(1.6, "down"), (2.6, "up")]
    assert spans["n0 carrier"] == [(1.62, "down"), (2.61, "up")]
    assert lanes(found)["queue stopped: g dropped"] == 3
    wire = next(lane for lane in found.lanes if lane.name == "wire n0")
    assert (len(wire.above), len(wire.below)) == (20, 1)


def test_a_queue_is_stopped_and_woken() -> None:
    ours = [
        event(1.0 + n, "guest", "queue", nic="n0", state=state, by="netpoll")
        for n, state in enumerate(("stopped", "woken"))
    ]
    kernels = [event(1.5, "qmp", "queue", nic="n0", state="stopped", by="kernel", queue=0, why="driver", since=1.4)]
    found = timeline(DELIVERED, run(send(10), ours, kernels, event(3.0, "wire", "frame", nic="n0", dir="out")))
    spans = {lane.name: [(span.begin, span.label, span.style) for span in lane.spans] for lane in found.lanes}
    assert spans["n0 TX queue, ours"] == [(1.0, "stopped", "down"), (2.0, "woken", "up")]
    assert spans["n0 TX queue, kernel's"] == [(1.5, "stopped", "down")]
    names = [lane.name for lane in found.lanes]
    assert names.index("wire n0") < names.index("n0 TX queue, ours"), "what got out stands above why it did not"


def test_without_lines_to_compare_the_page_shows_the_moment_and_waits_in_vain(tmp_path: Path) -> None:
    planned, events = PARITY, run(event(9.9, "inject", "crash", how="nmi"))
    vain = event(
        12.0, "await", "timeout", what="panic", of="<b>end</b>", state=None, count=1, within=2.0, seen="count 0"
    )
    said = [event(1.0 + n, "console", "line", text=f"line {n} <i>") for n in range(7)]
    folder = make(tmp_path, "inconclusive")
    assert store.read_plan(folder).scenario == planned.scenario
    every = sorted([*events[:-1], *said, vain], key=lambda each: float(each["t"]))
    (folder / store.EVIDENCE).write_text(
        "".join(json.dumps(each) + "\n" for each in [*every, events[-1] | {"t": 12.5}])
    )
    text = " ".join(Tags(html.write(tmp_path).read_text()).text.split())
    assert "Waited in vain until 12.000 s for `<b>end</b>` on the console: 2 s had passed, count 0" in text
    assert "line 2 <i> line 3 <i> line 4 <i> line 5 <i> line 6 <i> At that time:" in text
    assert "Done before: crash nmi at 9.900 s" in text


@pytest.mark.parametrize(
    ("events", "begin", "end"),
    [([], 0.0, 1.0), (run(), 0.0, 1.1), (run(send(10000, step=0.0001)), 0.0, 3.0), (crashed(PANIC_LINES), 9.95, 10.02)],
    ids=["nothing", "empty-run", "dense", "close-up"],
)
def test_pictures_stay_inside_their_field(events: list[dict[str, object]], begin: float, end: float) -> None:
    picture = draw(timeline(DELIVERED, events), begin, end, "x")
    assert len(picture.svg) < 6000
    for x in re.findall(r"M(-?\d+)", picture.svg):
        assert 0 <= int(x) <= 1000
    assert all(
        0 <= label.left <= 100 and label.left + label.width <= 100.1 for row in picture.rows for label in row.labels
    )
    assert 2 <= len(picture.axis) <= 14


def test_a_folder_that_was_cut_short_is_a_case_with_an_error(tmp_path: Path) -> None:
    folder = make(tmp_path, "pass")
    (folder / store.VERDICT).unlink()
    (folder / store.EVIDENCE).unlink()
    found = view(folder, tmp_path)
    assert found.word == "ERROR"
    assert "never run" in found.errors[0]
    assert "was never run" in html.write(tmp_path).read_text()


def test_a_plan_of_another_version_is_a_case_with_an_error_and_the_others_are_shown(tmp_path: Path) -> None:
    make(tmp_path, "pass")
    other = make(tmp_path, "fail")
    (other / store.PLAN).write_text((other / store.PLAN).read_text().replace('"stages"', '"acts"', 1))
    text = Tags(html.write(tmp_path).read_text()).text
    assert "2 cases: 1 ERROR, 1 PASS" in " ".join(text.split())
    assert "damaged, or written by another version" in text


def test_500_cases_weigh_less_than_5_mb(tmp_path: Path) -> None:
    views = [view(make(tmp_path, kind), tmp_path) for kind in KINDS]
    many = [
        replace(views[n % len(views)], name=f"case/{n}", kernel=f"6.{n % 4}", nic=f"nic{n % 23}") for n in range(500)
    ]
    page = html.page(many, {})
    assert page.count('<details class="case') == 500
    assert len(page.encode()) < 5_000_000


def test_the_command_writes_it_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "fail")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"


@pytest.mark.parametrize("folder", ["", "no/such"])
def test_no_cases_no_report(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / folder)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
