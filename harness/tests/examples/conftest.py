"""What a conftest.py of one's own needs."""

from harness.api.fixtures import bond, crash, guest, judged, link, netconsole, netpoll, nic

__all__ = ["bond", "crash", "guest", "judged", "link", "netconsole", "netpoll", "nic"]
