"""Programs in any language that simulate on request, and what they link with."""

from pathlib import Path

INCLUDE = Path(__file__).parent
"""The folder of `penstock.h`, `penstock.f90` and `client.py`."""
