"""Options that make models quick in tests: sizes only, the equations stay those of the defaults."""

SMALL = {
    "branch_trunk": {"width": 32, "latent": 16, "layers": 2},
    "fno": {"width": 8, "modes": 3, "layers": 2},
    "mlp": {"hidden": (16,)},
    "transolver": {"width": 24, "heads": 2, "layers": 2, "slices": 6},
}
