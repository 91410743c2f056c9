"""Equations on the torus by Fourier pseudo-spectral methods: there are no linear systems."""
