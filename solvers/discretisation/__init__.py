"""From a PDE to its linear systems: finite elements by DOLFINx, simplices and stencils on regular grids."""
