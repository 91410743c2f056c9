"""The step of penstock's FNO against that of the `neuraloperator` package.

Both have equal shapes. The comparison is left out where the package is not installed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.learner.cases import LEARNING_RATE, Case
from benchmarks.report import paragraph
from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import Arm, measure
from penstock.learner.losses.losses import LOSSES
from penstock.learner.optimization import Optimization
from penstock.report import markdown

TITLE = "FNO against neuraloperator"
INTRODUCTION = """
Forward, loss, backward and AdamW at equal width, layers, kept wave numbers and projection, on one batch that lies on
the device. neuraloperator {version} has the settings that make it fastest: the plain einsum instead of opt_einsum's, no
positional embedding, no channel MLPs, a lifting of one layer, no normalisation around it, and fused AdamW except for
its complex weights, for which there is none. The faster of eager and compiled counts for either package. Its {theirs:,}
parameters are {ours:,} in penstock, which keeps the wave numbers 0 of either sign apart and has the grid's coordinates
as inputs.
"""


def against_neuraloperator(case: Case, device: torch.device, seconds: float) -> Section:
    try:
        import neuralop
    except ImportError as error:
        return Section(TITLE, f"Not compared: `import neuralop` gave {type(error).__name__}: {error}.")

    arrays = {name: torch.randn(case.batch_size, *shape, device=device) for name, shape in case.layout.shapes.items()}
    step, model = case.step(device), _their_fno(case).to(device)
    candidates: dict[str, Callable[[], Arm]] = {
        "penstock": lambda: _ours(step, arrays),
        "penstock, compiled": lambda: _ours(case.step(device, compile=True), arrays),
        "neuraloperator": lambda: _theirs(case, model, model, arrays),
        "neuraloperator, compiled": lambda: _theirs(case, model, torch.compile(model), arrays),
    }
    arms, failures = {}, []
    for name, build in candidates.items():
        try:
            arm = build()
            arm(1)
        except Exception as error:  # torch.compile may raise anything
            failures.append(f"- {name} fails: {' '.join(f'{type(error).__name__}: {error}'.split())[:160]}")
        else:
            arms[name] = arm
    rounds = measure(arms, seconds, device)

    def fastest(package: str) -> str:
        return min((arm for arm in arms if arm.startswith(package)), key=lambda arm: rounds.time(arm).median)

    ours, theirs = fastest("penstock"), fastest("neuraloperator")
    table = markdown(
        [[arm, f"{1e3 * rounds.time(arm).median:.3g}", str(rounds.speed(ours, arm))] for arm in arms],
        ["step of", "ms", f"{ours} against it"],
    )
    introduction = INTRODUCTION.format(
        version=neuralop.__version__, theirs=_num_parameters(model), ours=_num_parameters(step.surrogate)
    )
    text = "\n\n".join([paragraph(introduction), table, *failures])
    return Section(
        TITLE, text, (Target(what=f"{ours} against {theirs}", measured=rounds.speed(ours, theirs), least=1.0),)
    )


def _their_fno(case: Case) -> nn.Module:
    from neuralop.models import FNO
    from tensorly.plugins import use_default_einsum

    use_default_einsum()  # with opt_einsum's the contraction alone took 20 times as long, and nothing compiled
    torch.manual_seed(0)
    (targets,) = case.layout.output_blocks
    num_axes = len(targets.shape) - 1
    return FNO(
        n_modes=(2 * case.options["modes"] - 1,) * num_axes,  # they count both signs: -11 to 11 for 12 of ours
        in_channels=case.layout.shapes["fields"][0],
        out_channels=targets.shape[0],
        hidden_channels=case.options["width"],
        n_layers=case.options["layers"],
        lifting_channel_ratio=0,  # one layer
        projection_channel_ratio=2,
        positional_embedding=None,
        use_channel_mlp=False,
    )


def _ours(step: Optimization, arrays: dict[str, Tensor]) -> Arm:
    def run(count: int) -> None:
        for _ in range(count):
            step(arrays, LEARNING_RATE)

    return run


def _theirs(case: Case, model: nn.Module, forward: Callable[[Tensor], Tensor], arrays: dict[str, Tensor]) -> Arm:
    (targets,) = case.layout.output_blocks
    loss = LOSSES[case.loss](targets.on)
    parameters = list(model.parameters())
    optimizers = [
        torch.optim.AdamW([p for p in parameters if not p.is_complex()], LEARNING_RATE, fused=True),
        torch.optim.AdamW([p for p in parameters if p.is_complex()], LEARNING_RATE, foreach=True),
    ]

    def run(count: int) -> None:
        for _ in range(count):
            model.zero_grad()
            loss(forward(arrays["fields"]), arrays[targets.name]).mean().backward()
            for optimizer in optimizers:
                optimizer.step()

    return run


def _num_parameters(model: nn.Module) -> int:
    """The number of a model's parameters, as real numbers."""
    return sum(parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in model.parameters())
