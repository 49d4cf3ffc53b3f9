"""What tests of other folders are made with is used here too."""

import sys
from pathlib import Path

for _folder in ("console", "scale", "cli", "tidy"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))
