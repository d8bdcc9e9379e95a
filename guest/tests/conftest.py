"""Fixtures of more than one test module of `guest`."""

from guest.tests.af_packet_stack import driver as driver
from guest.tests.inside_netns import netns as netns
from guest.tests.inside_netns import pytest_pyfunc_call as pytest_pyfunc_call
from images.tests.tools import gdb_argv as gdb_argv
from images.tests.tools import tools as tools
