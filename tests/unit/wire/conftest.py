"""Properties run the same way every time; `OVERNIGHT_LONG=1` looks further, at random."""

import os

from hypothesis import settings

_IS_LONG = bool(os.environ.get("OVERNIGHT_LONG"))
settings.register_profile(
    "overnight", deadline=None, derandomize=not _IS_LONG, max_examples=2_000 if _IS_LONG else 100
)
settings.load_profile("overnight")
