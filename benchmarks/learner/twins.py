"""Models of other packages that do what models of ours do.

Each is imported when it is built, as none of the packages is one that penstock depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.learner.cases import Case


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A public model beside that of a case."""

    name: str
    package: str
    """What pip installs."""
    build: Callable[[Case], nn.Module]
    """Makes the model, which maps input fields to outputs.

    It raises ImportError where the package is missing.
    """
    is_equal: bool = True
    """Whether ours, of nearly its size, should be at least as fast."""

    @property
    def version(self) -> str:
        return metadata.version(self.package)


def neuraloperator_fno(case: Case) -> nn.Module:
    """neuraloperator's FNO with the settings that make it fastest."""
    from neuralop.models import FNO
    from tensorly.plugins import use_default_einsum

    use_default_einsum()  # with opt_einsum's the contraction alone took 20 times as long, and nothing compiled
    channels, channels_out, grid = _of_fields(case)
    return FNO(
        n_modes=(2 * case.options["modes"] - 1,) * len(grid),  # they count both signs: -11 to 11 for 12 of ours
        in_channels=channels,
        out_channels=channels_out,
        hidden_channels=case.options["width"],
        n_layers=case.options["layers"],
        lifting_channel_ratio=0,  # one layer
        projection_channel_ratio=2,
        positional_embedding=None,
        use_channel_mlp=False,
    )


def physicsnemo_fno(case: Case) -> nn.Module:
    from physicsnemo.models.fno import FNO

    channels, channels_out, grid = _of_fields(case)
    return FNO(
        in_channels=channels,
        out_channels=channels_out,
        decoder_layers=1,
        decoder_layer_size=2 * case.options["width"],
        decoder_activation_fn="gelu",
        dimension=len(grid),
        latent_channels=case.options["width"],
        num_fno_layers=case.options["layers"],
        num_fno_modes=case.options["modes"],
        padding=0,
    )


def well_unet(model: str, width: int) -> Callable[[Case], nn.Module]:
    """The builder of one of The Well's U-Nets, which halve a grid four times.

    Args:
        model: its class.
        width: number of channels at the finest level.
    """

    def build(case: Case) -> nn.Module:
        from the_well.benchmark import models

        channels, channels_out, grid = _of_fields(case)
        return getattr(models, model)(channels, channels_out, len(grid), grid, init_features=width)

    return build


def physicsnemo_unet(case: Case) -> nn.Module:
    from physicsnemo.models.unet import UNet

    channels, channels_out, _ = _of_fields(case)
    levels, width = case.options["levels"], case.options["width"]
    return UNet(
        channels,
        channels_out,
        model_depth=levels,
        feature_map_channels=[width * 2**level for level in range(levels) for _ in range(2)],
        conv_activation="gelu",
        gradient_checkpointing=False,
    )


def physicsnemo_transolver(case: Case) -> nn.Module:
    return _PhysicsNeMoTransolver(case)


class _PhysicsNeMoTransolver(nn.Module):
    """PhysicsNeMo's Transolver on the points of a mesh, its axes in our order."""

    def __init__(self, case: Case):
        from physicsnemo.models.transolver import Transolver

        super().__init__()
        options: dict[str, Any] = dict(case.options)
        (mesh,) = case.layout.geometries
        channels, channels_out, _ = _of_fields(case)
        points = torch.tensor(mesh.arrays.points, dtype=torch.float32)
        self.register_buffer("points", points.expand(case.batch_size, -1, -1).contiguous())
        self.net = Transolver(
            channels,
            channels_out,
            embedding_dim=mesh.dimension,
            n_layers=options["layers"],
            n_hidden=options["width"],
            n_head=options["heads"],
            mlp_ratio=options["ratio"],
            slice_num=options["slices"],
            use_te=False,
        )

    def forward(self, fields_BCP: Tensor) -> Tensor:
        return self.net(fields_BCP.transpose(1, 2), self.points).transpose(1, 2)


def _of_fields(case: Case) -> tuple[int, int, tuple[int, ...]]:
    """Channels in, channels out, and the shape of each."""
    (targets,) = case.layout.output_blocks
    channels_out, *shape = targets.shape
    return case.layout.shapes["fields"][0], channels_out, tuple(shape)
