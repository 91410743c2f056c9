"""Hooke's law of isotropic bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ufl

LAWS = ("plane_stress", "plane_strain")


def lame(youngs_modulus: Any, poisson_ratio: Any, *, law: str = "plane_strain") -> tuple[Any, Any]:
    """Lamé's constants λ and μ.

    Args:
        youngs_modulus: E, a number or data of a form.
        poisson_ratio: ν, likewise.
        law: "plane_strain", which is that of three dimensions, too, or "plane_stress", of a thin plate whose faces are
            free.
    """
    width = 1 - poisson_ratio if law == "plane_stress" else 1 - 2 * poisson_ratio
    return (
        youngs_modulus * poisson_ratio / ((1 + poisson_ratio) * width),
        youngs_modulus / (2 * (1 + poisson_ratio)),
    )


def stress(u: ufl.core.expr.Expr, lame_constants: tuple[Any, Any]) -> ufl.core.expr.Expr:
    """The stress σ = λ tr(ε) I + 2 μ ε of a displacement u, ε = (∇u + ∇uᵀ) / 2."""
    from ufl import Identity, grad, sym, tr

    first, second = lame_constants
    strain = sym(grad(u))
    return first * tr(strain) * Identity(len(u)) + 2 * second * strain
