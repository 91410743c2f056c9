"""Finite elements, on meshes and by DOLFINx."""
