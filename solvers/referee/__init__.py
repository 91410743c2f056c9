"""The referee: all ways to solve, compared with `auto` on one problem's systems."""
