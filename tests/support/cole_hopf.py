"""Burgers' equation on the circle in closed form, by NumPy."""

import numpy as np


def cole_hopf(initial, viscosity, time, extent=1.0):
    """u(t) = -2 ν (log φ)_x, where φ obeys the heat equation from exp(-1/(2ν) ∫ u) (Cole 1951, Hopf 1950)."""
    n = len(initial)
    k = 2j * np.pi / extent * n * np.fft.fftfreq(n)
    modes = np.fft.fft(initial)
    integral = np.fft.ifft(np.divide(modes, k, where=k != 0, out=np.zeros_like(modes))).real
    phi = np.fft.fft(np.exp(-integral / (2 * viscosity))) * np.exp(viscosity * k**2 * time)
    return -2 * viscosity * (np.fft.ifft(k * phi) / np.fft.ifft(phi)).real
