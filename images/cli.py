"""`netpoll-harness images build|list|prune`: the command line over this package.

In: parsed arguments. Out: text, and an exit code. Rule: an ImageError ends as its message and hint, never a traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from images.browser import ensure_browser
from images.capture import ensure_capture
from images.catalogue import list_, prune
from images.errors import ImageError, UnknownKernel
from images.fetch import Builder
from images.guest import ensure_guest
from images.kernel import ensure_kernel, kernel_names, recipe_of
from images.progress import MB, PlainText
from images.qemu import ensure_qemu
from images.recipes import DEFAULT_KERNEL
from images.store import Store, cache_root
from images.tools import ensure_tools

EXIT_OK = 0
EXIT_USAGE = 2  # before anything started
EXIT_TESTBED = 3  # the testbed could not be built


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `images` with its commands to a command line; `run` takes what it parses."""
    parser = subparsers.add_parser("images", help="build, list or prune QEMU, kernels and guest images")
    commands = parser.add_subparsers(dest="images_command", required=True, metavar="build|list|prune")
    build = commands.add_parser("build", help="fetch and build what is not in the cache yet")
    build.add_argument(
        "--kernel",
        action="append",
        metavar="NAME",
        help=f"kernel to build the guest for, more than once if wished: {', '.join(kernel_names())}, or all "
        f"(default: {DEFAULT_KERNEL})",
    )
    build.add_argument("--mirror", default="", metavar="URL", help="Debian mirror (default: this host's apt's own)")
    build.add_argument("--update", action="store_true", help="ask the mirror for newer packages")
    build.add_argument("--no-qemu", action="store_true", help="do not fetch QEMU")
    build.add_argument("--tools", action="store_true", help="only the programs that the tests need, and no image")
    build.add_argument("--browser", action="store_true", help="only the browser that tests open reports in")
    listing = commands.add_parser("list", help="show what is in the cache")
    listing.add_argument("--json", action="store_true", help="with every package's version, for programs")
    pruning = commands.add_parser("prune", help="remove what is out of date")
    pruning.add_argument("--all", action="store_true", help="remove everything that no running process uses")
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the chosen command. Returns 0; 2 for an unknown kernel; 3 when an image could not be had. Reasons: stderr."""
    commands: dict[str, Callable[[argparse.Namespace], None]] = {"build": _build, "list": _list, "prune": _prune}
    try:
        commands[args.images_command](args)
    except ImageError as error:
        print(f"images {args.images_command}: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UnknownKernel) else EXIT_TESTBED
    return EXIT_OK


def _build(args: argparse.Namespace) -> None:
    builder = Builder(progress=PlainText(), mirror=args.mirror, update=args.update)
    wished = args.kernel or [DEFAULT_KERNEL]
    recipes = {name: recipe_of(name) for name in (kernel_names() if "all" in wished else wished)}
    start = time.monotonic()
    if args.tools or args.browser:
        _build_programs(args, builder)
        print(f"ready after {time.monotonic() - start:.1f} s")
        return
    if not args.no_qemu:
        qemu = ensure_qemu(builder)
        print(f"QEMU {qemu.version}: {qemu.root}")
    for name in recipes:
        kernel = ensure_kernel(name, builder)
        print(f"{name}, Linux {kernel.release}: {kernel.vmlinux}")
        guest = ensure_guest(kernel, builder)
        print(f"guest for {name}: {guest.initrd}")
        print(f"capture kernel's files for {name}: {ensure_capture(kernel, builder).archive}")
    print(f"ready after {time.monotonic() - start:.1f} s")


def _build_programs(args: argparse.Namespace, builder: Builder) -> None:
    """What tests need besides images."""
    if args.tools:
        tools = ensure_tools(builder)
        print(f"{', '.join(f'{name} {version}' for name, version in tools.versions.items())}: {tools.tree}")
    if args.browser:
        browser = ensure_browser(builder)
        print(f"Chromium {browser.version}: {browser.tree}")


def _list(args: argparse.Namespace) -> None:
    images = list_(Store(cache_root()))
    if args.json:
        rows = [{**image.__dict__, "path": str(image.path), "packages": dict(image.packages)} for image in images]
        print(json.dumps(rows, indent=1))
        return
    for image in images:
        mark = "*" if image.current else " "
        print(f"{mark} {image.kind:24} {image.size / MB:8.1f} MB  {image.built}  {image.name}")
    total = sum(image.size for image in images)
    print(f"{len(images)} images, {total / MB:.1f} MB in {cache_root()}; * is current, `prune` removes the others")


def _prune(args: argparse.Namespace) -> None:
    done = prune(Store(cache_root()), everything=args.all)
    for name in done.removed:
        print(f"removed {name}")
    for name in done.in_use:
        print(f"kept {name}: in use")
    print(f"{done.freed / MB:.1f} MB freed")
