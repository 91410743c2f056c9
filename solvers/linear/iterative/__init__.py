"""Krylov methods: conjugate gradients and GCRO-DR, which recycle, and PETSc's by name."""
