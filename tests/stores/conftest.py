"""Lets the tests of each backend import the contract: pytest imports files without their directory."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
