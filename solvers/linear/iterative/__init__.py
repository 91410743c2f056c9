"""Krylov methods: CG and GCRO-DR, which recycle, and PETSc's methods by name."""
