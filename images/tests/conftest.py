"""Fixtures of more than one test module of `images`."""

from images.tests.tools import tools as tools
