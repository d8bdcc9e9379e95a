"""Which runs `bench growth` makes, which number of workers it calls best, and its picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from harness.bench.growth import MEMORY, Point, best, fitting, svg, sweep, table
from harness.testbed.capacity import guest_needs

POINTS = [Point(1, 2, 3.0, 2.0), Point(50, 1, 60.0, 50.0), Point(50, 2, 40.0, 70.0), Point(50, 4, 39.0, 77.0)]


def test_each_run_is_made_once() -> None:
    assert sweep((1, 50), (1, 2, 4), usual=2, shared=50) == [(1, 2), (50, 2), (50, 1), (50, 4)]


def test_of_equally_good_numbers_of_workers_the_smallest_is_best() -> None:
    assert best(POINTS, 50) == 2


@pytest.mark.parametrize(("guests", "left"), [(8, (1, 2, 4, 8)), (5, (1, 2, 4)), (0, (1,))])
def test_no_more_workers_than_memory_carries(guests: int, left: tuple[int, ...]) -> None:
    assert fitting((1, 2, 4, 8), guests * guest_needs(MEMORY)) == left


def test_the_table_has_a_line_a_run() -> None:
    lines = table(POINTS, 50)
    assert lines[3].split() == ["50", "2", "40.0", "75", "1.75"]
    assert lines[-1] == "best for 50 cases: 2 workers"


def test_the_picture_is_wellformed_and_shows_every_run() -> None:
    root = ET.fromstring(svg(POINTS, 2, 50))
    dots = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 2 + 3
    heights = [float(dot.attrib["cy"]) for dot in dots[2:]]
    assert heights == sorted(heights, reverse=True)  # more cases a minute are drawn higher
