"""`overnight`: the Message Batches API on your own machines, and nightly jobs. See ARCHITECTURE.md.

`overnight.map`, `overnight.submit` and `overnight.Job` are for programs; nothing is imported until one is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overnight.jobs.api import Failed, Job, Ok, Run, amap, map, submit

__version__ = "0.1.0"
__all__ = ["Failed", "Job", "Ok", "Run", "__version__", "amap", "map", "submit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'overnight' has no attribute {name!r}")
    from overnight.jobs import api  # noqa: PLC0415  A server needs none of it.

    return getattr(api, name)
