"""How values become arrays: converted, checked, of different lengths; and finite elements on simplices."""
