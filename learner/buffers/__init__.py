"""The bounded buffer: its slots, what they hold, and which ones a batch draws."""

from penstock.learner.buffers.units import Samples, Trajectories, Unit
from penstock.learner.buffers.windows import Pairs, Windows

UNITS: dict[str, type[Unit]] = {"samples": Samples, "trajectories": Trajectories, "pairs": Pairs, "windows": Windows}
