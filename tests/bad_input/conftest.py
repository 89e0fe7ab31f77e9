"""The tables of this folder are modules of its own."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "doors")]  # for tables.py and talking.py: pytest imports files without it
