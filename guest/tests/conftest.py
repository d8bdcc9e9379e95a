"""Fixtures of more than one test module of `guest`."""

from images.tests.tools import tools as tools
