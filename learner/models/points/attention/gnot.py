"""GNOT (Hao et al., ICML 2023): cross attention to every input function.

The source is arXiv 2302.14376.

Axes:  B batch, P points, Q points of an input function, C channels, H heads, c channels of a head, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import Block, Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.sites import Sites, net
from penstock.learner.optimizers import Recipe


class GNOT(nn.Module):
    """A transformer with linear attention, and a mixture of nets by place.

    Its queries are lifted from the places x of the outputs and the scalars s. Each geometry with input fields, or with
    points that vary, is an input function: its places and fields are lifted by a separate net. Each of `layers`
    blocks adds to the queries

        1. attention to the input functions,   2. N(Σ_e g_e(x) F_e),   3. attention to themselves,   4. as 2.

    F_e are nets of one hidden layer of 4 C neurons, g is the softmax of a net of the place, N and what attention sees
    are layer-normalised. Attention with q and k that are softmaxed over the channels of a head is

        out(x) = q(x) + Σ_m ∫ q(x)·k_m v_m dy / ∫ q(x)·k_m dy,

    by quadrature weights, and its cost grows with P + Q, not with their product. Inputs may sit on other geometries
    than the outputs, and on several.

    Args:
        layout: layout of batches.
        width: number C of channels, a multiple of `heads`. Good values: 64 to 128.
        heads: number of heads, at least 1. Good values: 1 to 8.
        layers: number of blocks, at least 1. Good values: 3 to 4.
        experts: number E of nets in each mixture, at least 1. Good values: 1 to 3.

    Raises:
        ValueError: outputs are scalars or sit on several geometries, there is no input, or an option is out of its
            range.
    """

    accepts = (Grid, Mesh, Points)
    resolution_free = (Grid, Mesh, Points)
    recipe = Recipe("muon", 2e-2)

    def __init__(self, layout: Layout, *, width: int = 64, heads: int = 4, layers: int = 3, experts: int = 2):
        super().__init__()
        require_positive("gnot", width=width, heads=heads, layers=layers, experts=experts)
        if width % heads:
            raise ValueError(f"gnot: width must be a multiple of heads, and {width} is none of {heads}")
        if (
            len(layout.output_blocks) != 1
            or layout.output_blocks[0].on is None
            or not layout.inputs + layout.geometry_blocks
        ):
            raise ValueError("gnot: needs all outputs on one geometry, no scalars among them, and an input")
        (outputs,) = layout.output_blocks
        self.layout = layout
        num_scalars = sum(block.shape[0] for block in layout.input_blocks if block.on is None)
        self.lift = net(outputs.on.dimension + num_scalars, width, width, width)
        functions = _functions(layout)
        self.lifts = nn.ModuleList(
            net(geometry.dimension + (0 if block is None else block.shape[0]), width, width, width)
            for geometry, block in functions
        )
        self.gate = net(outputs.on.dimension, width, width, experts) if experts > 1 else None
        self.blocks = nn.ModuleList(_Block(width, heads, experts, len(functions)) for _ in range(layers))
        self.project = net(width, width, outputs.shape[0])

    def forward(self, scalars: Tensor | None = None, **arrays: Tensor) -> Tensor:
        """Predict the outputs at the points.

        Args:
            scalars: input scalars [B, S], if there are any.
            **arrays: input fields [B, C, *], and of geometries points [B, P, d] and weights [B, *], by name.

        Returns:
            The outputs, [B, C, *].
        """
        given = arrays if scalars is None else {**arrays, "scalars": scalars}
        sites = Sites.of(self.layout.output_blocks[0].on, self.layout, given)
        num_points = sites.points.shape[1]
        seen = [] if scalars is None else [scalars[:, None].expand(-1, num_points, -1)]
        x_BPC = self.lift(torch.cat([sites.points, *seen], dim=2))
        functions = []
        for lift, (geometry, block) in zip(self.lifts, _functions(self.layout), strict=True):
            own = Sites.of(geometry, self.layout, given)
            fields = [] if block is None else [own.rows(arrays[block.name])]
            functions.append((lift(torch.cat([own.points, *fields], dim=2)), own.shares))
        gates_BPE = None if self.gate is None else torch.softmax(self.gate(sites.points), dim=-1)
        for block in self.blocks:
            x_BPC = block(x_BPC, sites.shares, functions, gates_BPE)
        return sites.fields(self.project(x_BPC))


def _functions(layout: Layout) -> list[tuple[Geometry, Block | None]]:
    """Where each input function sits, and its fields if there are any."""
    inputs = {block.on: block for block in layout.input_blocks}
    return [(each, inputs.get(each)) for each in layout.geometries if each in inputs or each.travelling]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, experts: int, num_functions: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.function_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_functions))
        self.cross = LinearAttention(width, heads, num_functions)
        self.itself = LinearAttention(width, heads, 1)
        self.mixtures = nn.ModuleList(
            nn.ModuleList(net(width, 4 * width, width) for _ in range(experts)) for _ in range(2)
        )

    def forward(
        self, x_BPC: Tensor, shares_BP: Tensor, functions: list[tuple[Tensor, Tensor]], gates_BPE: Tensor | None
    ) -> Tensor:
        before_cross, after_first, before_itself, after_second = self.norms
        first, second = self.mixtures
        sources = [(norm(z), shares) for norm, (z, shares) in zip(self.function_norms, functions, strict=True)]
        x_BPC = x_BPC + self.cross(before_cross(x_BPC), sources)
        x_BPC = x_BPC + after_first(_mixed(first, x_BPC, gates_BPE))
        normed_BPC = before_itself(x_BPC)
        x_BPC = x_BPC + self.itself(normed_BPC, [(normed_BPC, shares_BP)])
        return x_BPC + after_second(_mixed(second, x_BPC, gates_BPE))


def _mixed(nets: nn.ModuleList, x_BPC: Tensor, gates_BPE: Tensor | None) -> Tensor:
    if gates_BPE is None:
        return nets[0](x_BPC)
    return sum(gates_BPE[..., number : number + 1] * each(x_BPC) for number, each in enumerate(nets))


class LinearAttention(nn.Module):
    """Attention at a cost linear in the numbers of points; see `GNOT`.

    Args:
        width: number C of channels.
        heads: number of heads.
        num_sources: number of input functions, each with separate keys and values.
    """

    def __init__(self, width: int, heads: int, num_sources: int):
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(num_sources))
        self.out = nn.Linear(width, width)

    def forward(self, x_BPC: Tensor, sources: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Attend.

        Args:
            x_BPC: where queries come from.
            sources: for each input function its activations [B, Q, C] and what each point counts [B, Q].

        Returns:
            [B, P, C].
        """
        q_BHPc = torch.softmax(self._by_head(self.queries(x_BPC)), dim=-1)
        out_BHPc = q_BHPc
        for project, (z_BQC, shares_BQ) in zip(self.keys_values, sources, strict=True):
            k_BHQc, v_BHQc = map(self._by_head, project(z_BQC).chunk(2, dim=-1))
            k_BHQc = torch.softmax(k_BHQc, dim=-1) * shares_BQ[:, None, :, None]
            sums_BHP1 = q_BHPc @ k_BHQc.sum(dim=2)[..., None]
            out_BHPc = out_BHPc + q_BHPc @ (k_BHQc.transpose(2, 3) @ v_BHQc) / sums_BHP1
        return self.out(out_BHPc.transpose(1, 2).flatten(2))

    def _by_head(self, h_BPC: Tensor) -> Tensor:
        return h_BPC.unflatten(2, (self.heads, -1)).transpose(1, 2)
