"""Regular grids: stencils, differences, and elements that amount to them."""
