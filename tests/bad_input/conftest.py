"""Tables and the bodies of this folder are modules of its own; whatever a test opened is closed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for tables.py and surface.py: pytest imports files without it
