"""Waves and flows by Fourier modes or in closed form, without linear systems."""
