"""Images: recipes that turn Debian packages into a QEMU, kernels and a guest, kept in a content-addressed cache.

    import images
    builder = images.Builder(progress=images.PlainText())
    qemu = images.ensure_qemu(builder)
    kernel = images.ensure_kernel("debian-6.1", builder)
    guest = images.ensure_guest(kernel, builder)

In: the mirror of this host's apt (images.mirror). Out: paths and argument lists that a testbed can use. Rule: what was
built once is used again without a network; every error is an ImageError that says what to do next.
"""

from images.browser import Browser, ensure_browser
from images.bzimage import has_pvh_entry, unpack_kernel
from images.capture import INITRD as CAPTURE_INITRD
from images.capture import KERNEL as CAPTURE_KERNEL
from images.capture import CaptureImage, DumpTool, ensure_capture, ensure_makedumpfile
from images.catalogue import Image, Pruned, list_, prune
from images.crash_module import CrashModule, ensure_crash_module
from images.errors import (
    BadKernel,
    BadQemu,
    CacheUnusable,
    DiskFull,
    FetchFailed,
    ImageError,
    NoApt,
    NoKeyring,
    NoMirror,
    UnknownKernel,
)
from images.fetch import Builder
from images.forkable import ensure_forkable
from images.gdb import Gdb, ensure_gdb
from images.guest import READY_LINE, GuestImage, ensure_guest
from images.kernel import Kernel, ensure_kernel, kernel_at, kernel_names
from images.nfs import INITIALIZED as NFS_INITIALIZED
from images.nfs import NfsServer, ensure_nfs_server
from images.progress import PlainText, Progress, Silent
from images.qemu import Qemu, ensure_qemu, qemu_at
from images.recipes import DEFAULT_KERNEL
from images.store import Store, cache_root
from images.tools import Tools, ensure_tools

__all__ = [
    "CAPTURE_INITRD",
    "CAPTURE_KERNEL",
    "DEFAULT_KERNEL",
    "NFS_INITIALIZED",
    "READY_LINE",
    "BadKernel",
    "BadQemu",
    "Browser",
    "Builder",
    "CacheUnusable",
    "CaptureImage",
    "CrashModule",
    "DiskFull",
    "DumpTool",
    "FetchFailed",
    "Gdb",
    "GuestImage",
    "Image",
    "ImageError",
    "Kernel",
    "NfsServer",
    "NoApt",
    "NoKeyring",
    "NoMirror",
    "PlainText",
    "Progress",
    "Pruned",
    "Qemu",
    "Silent",
    "Store",
    "Tools",
    "UnknownKernel",
    "cache_root",
    "ensure_browser",
    "ensure_capture",
    "ensure_crash_module",
    "ensure_forkable",
    "ensure_gdb",
    "ensure_guest",
    "ensure_kernel",
    "ensure_makedumpfile",
    "ensure_nfs_server",
    "ensure_qemu",
    "ensure_tools",
    "has_pvh_entry",
    "kernel_at",
    "kernel_names",
    "list_",
    "prune",
    "qemu_at",
    "unpack_kernel",
]
