"""Options that make models quick in tests: sizes only, the equations stay those of the defaults."""

SMALL = {
    "branch_trunk": {"width": 32, "latent": 16, "layers": 2},
    "codano": {"width": 4, "modes": 2, "layers": 1},
    "cvit": {"width": 8, "heads": 2, "layers": 1, "patch": 3},
    "deeponet": {"width": 32, "latent": 16, "layers": 2},
    "ffno": {"width": 8, "modes": 3, "layers": 1},
    "fno": {"width": 8, "modes": 3, "layers": 1},
    "galerkin": {"width": 8, "layers": 1},
    "gino": {"width": 12, "resolution": 6, "modes": 2, "layers": 1, "hidden": 8},
    "gnot": {"width": 16, "heads": 2, "layers": 1},
    "localno": {"width": 8, "modes": 3, "layers": 1},
    "lsm": {"width": 8},
    "mesh_graph_net": {"width": 12, "layers": 2},
    "mgno": {"width": 8, "layers": 1},
    "mlp": {"hidden": (16,)},
    "pointnet": {"width": 4},
    "t1": {"width": 8, "modes": 5, "layers": 1},
    "transolver": {"width": 24, "heads": 2, "layers": 1, "slices": 6},
    "unet": {"width": 8},
    "uno": {"width": 8},
}
