"""glibc's allocator, told to keep the blocks we free: we take the same ones again at once.

By default it returns freed blocks of more than 128 KB to the kernel, and taking them again costs a page fault per
4 KB. Bodies and results pass through such blocks, three for every read of the socket: receiving 236 MB took 0.35 to
1.0 s of CPU with the default and 0.2 s with this (benchmarks/ingest.py). Costs up to 16 MB of memory per thread pool.
"""

import ctypes
import platform
from typing import Final

# Numbers from malloc.h; mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 16 * 1024 * 1024
_BLOCK_BYTES_MAX: Final = 4 * 1024 * 1024  # Above all blocks of a segment, below a body, which grows without copies.


def keep_freed_blocks() -> None:
    """Set both thresholds for this process. Does nothing where the C library is another one."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
