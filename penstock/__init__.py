"""penstock: online training of neural operators from live PDE solvers."""

__version__ = "0.2.0"
