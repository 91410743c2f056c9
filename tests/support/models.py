"""Options that make models quick in tests: sizes only, the equations stay those of the defaults."""

SMALL = {
    "branch_trunk": {"width": 32, "latent": 16, "layers": 2},
    "deeponet": {"width": 32, "latent": 16, "layers": 2},
    "ffno": {"width": 8, "modes": 3, "layers": 1},
    "fno": {"width": 8, "modes": 3, "layers": 1},
    "galerkin": {"width": 8, "layers": 1},
    "gaot": {"width": 16, "resolution": 4, "radii": (1.75,), "hidden": 8, "channels": 16, "heads": 2, "layers": 2},
    "geo_fno": {"width": 12, "resolution": 6, "modes": 3, "layers": 1},
    "gino": {"width": 12, "resolution": 6, "modes": 2, "layers": 1, "hidden": 8},
    "gnot": {"width": 16, "heads": 2, "layers": 1},
    "mesh_graph_net": {"width": 12, "layers": 2},
    "mgno": {"width": 8, "layers": 1},
    "mlp": {"hidden": (16,)},
    "multi_onet": {"width": 16, "layers": 2},
    "pod_deeponet": {"width": 16, "latent": 8, "layers": 2},
    "pointnet": {"width": 4},
    "rigno": {"width": 12, "resolution": 4, "layers": 1},
    "transolver": {"width": 24, "heads": 2, "layers": 1, "slices": 6},
    "unet": {"width": 8},
    "upt": {"width": 16, "resolution": 4, "tokens": 6, "heads": 2, "layers": 1},
    "uno": {"width": 8},
}
