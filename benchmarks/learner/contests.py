"""Steps of penstock's models against those of public ones, in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.learner import cases, twins
from benchmarks.learner.cases import LEARNING_RATE, Case
from benchmarks.learner.twins import Twin
from benchmarks.report import paragraph
from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import Arm, Rounds, measure
from penstock.learner.losses.losses import LOSSES
from penstock.learner.optimization import Optimization
from penstock.report import markdown

OURS = "penstock"
MODES = {"eager": False, "compiled": True}
"""Whether a step is compiled, by what its arm is called."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One of our models beside public ones."""

    title: str
    case: Case
    twins: tuple[Twin, ...]
    counts_flops: bool
    """Whether floating-point operations are counted; torch has no count for FFTs."""
    text: str
    """What the models have in common, and how they differ."""


FNO_TEXT = """
All have equal width, layers, kept wave numbers and projection. neuraloperator's FNO has the settings that make it
fastest: the plain einsum instead of opt_einsum's, no positional embedding, no channel MLPs, a lifting of one layer,
no normalisation around it. PhysicsNeMo's has no padding, and its lifting has two layers. penstock keeps the wave
numbers 0 of either sign apart, which the others do in their own ways, and has the grid's coordinates as inputs, as
PhysicsNeMo's has.
"""
UNET_TEXT = """
All halve the grid four times and have twice the channels at each coarser level. A level of penstock's has a residual
block of two convolutions by 3x3 with GroupNorm and GELU on either way, and changes level by convolutions by 3x3,
which makes it larger at equal width; UNetClassic's has two convolutions with BatchNorm and tanh and changes level by
max pooling and by transposed convolutions by 2x2; UNetConvNext's has a depthwise convolution by 7x7 and a net at each
point. Their widths are those that bring the number of parameters nearest to penstock's, and UNetClassic once more
penstock's width, at which it is a smaller model.
"""
UNET_3D_TEXT = """
Both have three levels and equal width, GroupNorm and GELU. PhysicsNeMo's U-Net has two convolutions per level, no
residual, and changes level by max pooling and by transposed convolutions; its gradient checkpointing is off. With its
residual blocks penstock's has 9 % more parameters, four convolutions instead of three on the finest grid, and half as
many activations again.
"""
TRANSOLVER_TEXT = """
Both have equal width, heads, layers, slices, neurons and points, and the points as inputs beside the field.
penstock's weighs the points by quadrature; PhysicsNeMo's takes them all alike, without Transformer Engine.
"""


def _fno(shape: tuple[int, ...], width: int, modes: int, batch_size: int) -> Contest:
    case = cases.on_grid("fno", shape, batch_size, width=width, modes=modes, layers=4)
    return Contest(
        title=f"FNO, {_size(shape)}, width {width}, {modes} modes, 4 layers, batch {batch_size}",
        case=case,
        twins=(
            Twin(name="neuraloperator", package="neuraloperator", build=twins.neuraloperator_fno),
            Twin(name="PhysicsNeMo", package="nvidia-physicsnemo", build=twins.physicsnemo_fno),
        ),
        counts_flops=False,
        text=FNO_TEXT,
    )


def _unet(shape: tuple[int, ...], batch_size: int) -> Contest:
    def well(model: str, width: int, *, is_equal: bool = True) -> Twin:
        name, build = f"{model}, width {width}", twins.well_unet(model, width)
        return Twin(name=name, package="the_well", build=build, is_equal=is_equal)

    return Contest(
        title=f"U-Net, {_size(shape)}, width 16, 5 levels, batch {batch_size}",
        case=cases.on_grid("unet", shape, batch_size, width=16, levels=5),
        twins=(well("UNetClassic", 20), well("UNetClassic", 16, is_equal=False), well("UNetConvNext", 20)),
        counts_flops=True,
        text=UNET_TEXT,
    )


def _unet_3d(shape: tuple[int, ...], batch_size: int) -> Contest:
    return Contest(
        title=f"U-Net, {_size(shape)}, width 16, 3 levels, batch {batch_size}",
        case=cases.on_grid("unet", shape, batch_size, width=16, levels=3),
        twins=(Twin(name="PhysicsNeMo", package="nvidia-physicsnemo", build=twins.physicsnemo_unet),),
        counts_flops=True,
        text=UNET_3D_TEXT,
    )


def _transolver(num_points: int, batch_size: int, **options: int) -> Contest:
    words = ", ".join(f"{name} {number}" for name, number in options.items())
    return Contest(
        title=f"Transolver, {num_points:,} points, {words}, batch {batch_size}",
        case=cases.on_mesh("transolver", num_points, batch_size, **options),
        twins=(Twin(name="PhysicsNeMo", package="nvidia-physicsnemo", build=twins.physicsnemo_transolver),),
        counts_flops=True,
        text=TRANSOLVER_TEXT,
    )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


CONTESTS: dict[str, Contest] = {
    "fno-1d": _fno((512,), 32, 16, 16),
    "fno-2d": _fno((64, 64), 32, 12, 8),
    "fno-3d": _fno((24, 24, 24), 16, 6, 4),
    "unet-2d": _unet((64, 64), 8),
    "unet-3d": _unet_3d((32, 32, 32), 2),
    "transolver": _transolver(1024, 8, width=64, heads=4, layers=4, slices=32, ratio=1),
    "transolver-wide": _transolver(2048, 4, width=128, heads=8, layers=4, slices=64, ratio=2),
}


def against(contest: Contest, device: torch.device, seconds: float) -> Section:
    """Measure all steps of a contest in turns.

    Args:
        contest: the contest.
        device: where the steps run.
        seconds: time of each arm, about.

    Returns:
        Its section. Twins whose package is missing, and steps that fail, are named in it.
    """
    case = contest.case
    arrays = {name: torch.randn(case.batch_size, *shape, device=device) for name, shape in case.layout.shapes.items()}
    models, remarks = {OURS: case.surrogate(device)}, []
    versions = []
    for twin in contest.twins:
        torch.manual_seed(0)
        try:
            models[twin.name] = twin.build(case).to(device)
        except ImportError as error:
            remarks.append(
                f"- {twin.name} is not compared: {type(error).__name__}: {error}: `pip install {twin.package}`."
            )
        else:
            versions.append(f"{twin.package} {twin.version}")
    arms: dict[tuple[str, str], Arm] = {}
    for mode, compiles in MODES.items():
        for name, model in models.items():
            try:
                arm = _ours(case, arrays, device, compiles) if name == OURS else _theirs(case, model, arrays, compiles)
                arm(1)
            except Exception as error:  # torch.compile may raise anything
                remarks.append(f"- {name}, {mode}, fails: {' '.join(f'{type(error).__name__}: {error}'.split())[:160]}")
            else:
                arms[name, mode] = arm
    rounds = measure({f"{name}, {mode}": arm for (name, mode), arm in arms.items()}, seconds, device)
    flops = {name: _flops(model, arrays) for name, model in models.items()} if contest.counts_flops else {}
    rows = [_row(name, mode, models[name], rounds, flops) for name, mode in arms]
    columns = ["step of", "parameters", "ms", "CPU ms", "speed of penstock against it", "in CPU time"]
    table = markdown(rows, columns + (["GFLOP", "speed per FLOP"] if flops else []))
    held = {OURS, *(twin.name for twin in contest.twins if twin.is_equal)}
    targets = tuple(
        _target(mode, [name for name, other in arms if other == mode and name in held], rounds) for mode in MODES
    )
    packages = f"Versions: {', '.join(dict.fromkeys(versions))}." if versions else ""
    text = "\n\n".join(filter(None, [paragraph(f"{contest.text} {packages}"), table, "\n".join(remarks)]))
    return Section(contest.title, text, tuple(target for target in targets if target is not None))


def _row(name: str, mode: str, model: nn.Module, rounds: Rounds, flops: dict[str, int]) -> list[str]:
    arm, ours = f"{name}, {mode}", f"{OURS}, {mode}"
    processor = rounds.on_processor
    speed = rounds.speed(ours, arm)
    cells = [
        arm,
        f"{_num_parameters(model):,}",
        f"{1e3 * rounds.time(arm).median:.3g}",
        f"{1e3 * processor.time(arm).median:.3g}",
        *(["-", "-"] if name == OURS else [str(speed), str(processor.speed(ours, arm))]),
    ]
    if flops:
        per_flop = speed.median * flops[OURS] / flops[name]
        cells += [f"{flops[name] / 1e9:.3g}", "-" if name == OURS else f"{per_flop:.3g}"]
    return cells


def _target(mode: str, names: list[str], rounds: Rounds) -> Target | None:
    """The speed of ours against the fastest of the others; None if there are none."""
    others = [f"{name}, {mode}" for name in names if name != OURS]
    if not others or OURS not in names:
        return None
    processor = rounds.on_processor
    fastest = min(others, key=lambda arm: processor.time(arm).median)
    return Target(what=f"against {fastest}", measured=processor.speed(f"{OURS}, {mode}", fastest), least=1.0)


def _ours(case: Case, arrays: dict[str, Tensor], device: torch.device, compiles: bool) -> Arm:
    step: Optimization = case.step(device, compile=compiles)

    def run(count: int) -> None:
        for _ in range(count):
            step(arrays, LEARNING_RATE)

    return run


def _theirs(case: Case, model: nn.Module, arrays: dict[str, Tensor], compiles: bool) -> Arm:
    """A step with our loss and fused AdamW; there is none for complex weights."""
    (targets,) = case.layout.output_blocks
    loss = LOSSES[case.loss](targets.on)
    parameters = list(model.parameters())
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([p for p in parameters if not p.is_complex()], LEARNING_RATE, fused=True)
    ]
    if complex_parameters := [p for p in parameters if p.is_complex()]:
        optimizers.append(torch.optim.AdamW(complex_parameters, LEARNING_RATE, foreach=True))

    def mean_loss(fields: Tensor, wanted: Tensor) -> Tensor:
        return loss(model(fields), wanted).mean()

    forward: Callable[[Tensor, Tensor], Tensor] = torch.compile(mean_loss, dynamic=False) if compiles else mean_loss

    def run(count: int) -> None:
        for _ in range(count):
            model.zero_grad()
            forward(arrays["fields"], arrays[targets.name]).backward()
            for optimizer in optimizers:
                optimizer.step()

    return run


def _flops(model: nn.Module, arrays: dict[str, Tensor]) -> int:
    """Floating-point operations of a model's forward and backward passes."""
    with FlopCounterMode(display=False) as counter:
        outputs = model.predict_in_stds(arrays) if hasattr(model, "predict_in_stds") else model(arrays["fields"])
        (outputs if isinstance(outputs, Tensor) else next(iter(outputs.values()))).sum().backward()
    return counter.get_total_flops()


def _num_parameters(model: nn.Module) -> int:
    """The number of a model's parameters, as real numbers."""
    return sum(parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in model.parameters())
