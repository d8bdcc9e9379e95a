"""Fixtures of more than one test module of `images`."""

from images.tests.tools import gdb_argv as gdb_argv
from images.tests.tools import tools as tools
