"""Models as users write them, from issues of torch, demos and forums; `test_zoo.py` says what becomes of each."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

GRID = (8, 8)
WIDTH = 4


class Plain(nn.Module):
    """What the others change."""

    def __init__(self, layout):
        super().__init__()
        self.a = nn.Conv2d(2, WIDTH, 3, padding=1)
        self.b = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.c = nn.Conv2d(WIDTH, 2, 3, padding=1)

    def lift(self, fields, scalars):
        scalars = scalars[:, :, None, None].expand(-1, -1, *fields.shape[2:])
        return F.gelu(self.a(torch.cat([fields, scalars], 1)))

    def middle(self, x):
        return F.gelu(self.b(x))

    def forward(self, fields, scalars):
        return self.c(self.middle(self.lift(fields, scalars)))


class ComplexWeights(Plain):
    """The FNO of nearly every public repository."""

    dtype = torch.complex64

    def __init__(self, layout):
        super().__init__(layout)
        self.w = nn.Parameter(torch.randn(WIDTH, WIDTH, 3, 3, dtype=self.dtype))
        self.phase = nn.Parameter(torch.tensor(0.5 + 0.1j, dtype=self.dtype))

    def middle(self, x):
        spectrum = torch.fft.rfft2(x.to(self.w.real.dtype))
        low = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :3, :3], self.w.conj()) * self.phase
        low = F.pad(low, (0, spectrum.shape[-1] - 3, 0, spectrum.shape[-2] - 3))
        return F.gelu(torch.fft.irfft2(low, s=x.shape[-2:]).float() + self.b(x))


class DoubleComplexWeights(ComplexWeights):
    dtype = torch.complex128


class ComplexBuffer(Plain):
    dtype = torch.complex64

    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("twiddles", torch.randn(WIDTH, 1, 1, dtype=self.dtype))

    def middle(self, x):
        return super().middle(x) * self.twiddles.abs().float()


class DoubleComplexBuffer(ComplexBuffer):
    dtype = torch.complex128


class Double(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.double()

    def forward(self, fields, scalars):
        return super().forward(fields.double(), scalars.double())


class MixedPrecisions(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.b.double()

    def middle(self, x):
        return super().middle(x.double()).float()


class BatchNormed(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.norm = nn.BatchNorm2d(WIDTH)

    def middle(self, x):
        return super().middle(self.norm(x))


class Dropped(Plain):
    def middle(self, x):
        return F.dropout(super().middle(x), 0.1, self.training)


class NewBuffer(Plain):
    """A running statistic that is assigned, not changed in place (pytorch/pytorch#84053)."""

    start, persistent = torch.ones(()), True

    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("scale", self.start, persistent=self.persistent)

    def middle(self, x):
        if self.training:
            before = 1.0 if self.scale is None else self.scale
            self.scale = 0.5 * before + 0.5 * (1 + x.detach().std(dim=(0, 2, 3)))[:, None, None]
        return super().middle(x if self.scale is None else x / self.scale)


class LateBuffer(NewBuffer):
    start = None


class ForgottenBuffer(NewBuffer):
    persistent = False


class PlainAttribute(NewBuffer):
    """No buffer at all."""

    def __init__(self, layout):
        super().__init__(layout)
        del self.scale
        self.scale = None


class RandomFeatures(Plain):
    """Fixed random numbers that nobody saves: `penstock export` would draw others."""

    def __init__(self, layout):
        super().__init__(layout)
        self.features = torch.randn(WIDTH, 1, 1)

    def middle(self, x):
        return super().middle(x * self.features)


class SavedRandomFeatures(RandomFeatures):
    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("features", self.__dict__.pop("features"))


class Masked(Plain):
    """Infinities in a buffer and in a frozen parameter."""

    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("mask", torch.full((8, 8), -torch.inf).triu(1))
        self.old = nn.Parameter(self.mask.clone(), requires_grad=False)

    def middle(self, x):
        return super().middle(x) @ torch.softmax(self.mask + self.old, 1)


class IntegerParameter(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.order = nn.Parameter(torch.randperm(WIDTH), requires_grad=False)

    def middle(self, x):
        return super().middle(x[:, self.order])


class Tied(Plain):
    def middle(self, x):
        return super().middle(super().middle(x))


class TiedWeights(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.d = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.d.weight = self.b.weight

    def middle(self, x):
        return super().middle(F.gelu(self.d(x)))


class Unused(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.never = nn.Linear(7, 7)


class Frozen(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.b.requires_grad_(False)


class Thawing(Plain):
    """A part that is trained from the third step on."""

    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("count", torch.tensor(0))

    def middle(self, x):
        if self.training:
            self.count += 1
        self.b.requires_grad_(bool(self.count >= 3) and self.training)
        return super().middle(x)


class Lazy(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.a = nn.LazyConv2d(WIDTH, 3, padding=1)
        self.norm = nn.LazyBatchNorm2d()

    def middle(self, x):
        return super().middle(self.norm(x))


class WeightNormed(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.b = nn.utils.weight_norm(self.b)


class Parametrized(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.a = nn.utils.parametrizations.spectral_norm(self.a)
        self.b = nn.utils.parametrizations.weight_norm(self.b)


class SpectralNormed(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.b = nn.utils.spectral_norm(self.b)


class KeepsActivations(Plain):
    def middle(self, x):
        self.last, self.history, self.parts = x, {"all": [x, (2 * x,)]}, [x, x]
        return super().middle(x)


class KeepsArrays(Plain):
    def middle(self, x):
        self.array, self.ragged = x.detach().numpy(), [np.ones(2), np.ones((3, 1)), None, np.nan]
        return super().middle(x)


class KeepsHiddenState(Plain):
    """Carries a graph into the next step."""

    hidden = 0.0

    def middle(self, x):
        self.hidden = 0.5 * self.hidden + x.mean() if self.training else self.hidden
        return super().middle(x + 0 * self.hidden)


class WithMetadata(Plain):
    """neuraloperator's BaseModel."""

    def state_dict(self, destination=None, prefix="", keep_vars=False):
        state = super().state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        state["_metadata"] = {"width": WIDTH, "activation": F.gelu, "args": ()}
        return state

    def load_state_dict(self, state, strict=True, assign=False):
        state.pop("_metadata")
        return super().load_state_dict(state, strict=strict, assign=assign)


class InnerMetadata(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.inner = WithMetadata(layout)

    def forward(self, fields, scalars):
        return self.inner(fields, scalars)


class ExtraState(Plain):
    """What torch offers for state that is no tensor; here it counts, and holds a tensor too."""

    def __init__(self, layout):
        super().__init__(layout)
        self.seen, self.size = 0, {"scale": torch.ones(()), "pair": (1, None), "list": [True, 0.5, "x"]}

    def get_extra_state(self):
        return {"seen": self.seen, "size": self.size}

    def set_extra_state(self, state):
        self.seen, self.size = state["seen"], state["size"]
        assert isinstance(self.size["pair"], tuple) and self.size["list"] == [True, 0.5, "x"]

    def middle(self, x):
        if self.training:
            self.seen += 1
            self.size["scale"] = self.size["scale"] + 0.1
        return super().middle(x * self.size["scale"] / (1 + 0.1 * self.seen))


class UnsaveableExtraState(Plain):
    def get_extra_state(self):
        return {"when": object()}

    def set_extra_state(self, state):
        pass


class Versioned(Plain):
    """Migrates state of an older version, which torch tells by the state_dict's own metadata."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version", 1) < 2:
            state[f"{prefix}c.weight"] = 2 * state[f"{prefix}c.weight"]
        super()._load_from_state_dict(state, prefix, metadata, *rest)


class ThroughNumpy(Plain):
    """Trains, and can't be exported."""

    def middle(self, x):
        return super().middle(x * float(np.asarray(x.detach()).std()))


class ChannelsLast(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.to(memory_format=torch.channels_last)

    def middle(self, x):
        return super().middle(x.to(memory_format=torch.channels_last))


class Scripted(nn.Module):
    def __init__(self, layout):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = nn.BatchNorm2d(1), nn.Conv2d(1, WIDTH, 1), nn.Tanh(), nn.Conv2d(WIDTH, 2, 1)
            self.net = torch.jit.script(nn.Sequential(*layers))

    def forward(self, fields, scalars):
        return self.net(fields)


class ZeroDimensional(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.gain = nn.Parameter(torch.tensor(1.0))

    def middle(self, x):
        return self.gain * super().middle(x)


class ZeroInitialised(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        nn.init.zeros_(self.c.weight)
        nn.init.zeros_(self.c.bias)


class SparseGradients(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.table = nn.Embedding(10, WIDTH, sparse=True)

    def middle(self, x):
        return super().middle(x) + self.table(torch.tensor([3]))[:, :, None, None]


class SparseBuffer(Plain):
    """A graph's Laplacian."""

    persistent = False

    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("laplacian", torch.eye(8).to_sparse(), persistent=self.persistent)

    def middle(self, x):
        return super().middle((self.laplacian @ x.reshape(-1, 8).T).T.reshape(x.shape))


class SavedSparseBuffer(SparseBuffer):
    persistent = True


class HookOnItself(Plain):
    """A hook that holds the model: a copy's hook uses the original's weights."""

    def __init__(self, layout):
        super().__init__(layout)
        self.gain = nn.Parameter(torch.ones(()))
        self.b.register_forward_hook(lambda module, inputs, output: self.gain * output)


class Hooked(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.b.register_forward_hook(lambda module, inputs, output: 2 * output)


class SharedModule(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.again = nn.ModuleList([self.b, self.b])

    def middle(self, x):
        for module in self.again:
            x = F.gelu(module(x))
        return x


class ChangesInputs(Plain):
    def forward(self, fields, scalars):
        fields *= 2
        fields[:, :, 0] = 0
        scalars.clamp_(0)
        return super().forward(fields, scalars)


class ChangesActivationInPlace(Plain):
    def middle(self, x):
        y = torch.tanh(x)
        y += 1
        return super().middle(y)


class OwnGenerator(Plain):
    """Noise that torch's random state does not cover."""

    def __init__(self, layout):
        super().__init__(layout)
        self.generator = np.random.default_rng(0)

    def middle(self, x):
        return super().middle(x + 0.1 * self.generator.normal()) if self.training else super().middle(x)


class AlwaysRandom(Plain):
    def middle(self, x):
        return super().middle(x + 0.1 * torch.randn_like(x))


class AcrossTheBatch(Plain):
    """Normalised by all samples together, in eval() too."""

    def middle(self, x):
        return super().middle(x / x.std())


class Squeezed(Plain):
    """Right for every batch but one of one sample."""

    def forward(self, fields, scalars):
        return super().forward(fields, scalars).squeeze()


class FixedBatch(Plain):
    def middle(self, x):
        return super().middle(x.reshape(2, -1, WIDTH, *GRID).flatten(0, 1))


class NotFinite(Plain):
    def middle(self, x):
        return super().middle(torch.log(x - x.max()))


class NotFiniteGradient(Plain):
    """A norm of zeros: its value is 0, its gradient NaN."""

    def middle(self, x):
        return super().middle(x + torch.sqrt((x - x).square().sum()))


class Detached(Plain):
    def middle(self, x):
        return super().middle(x).detach()


class WhollyDetached(Plain):
    def forward(self, fields, scalars):
        with torch.no_grad():
            return super().forward(fields, scalars)


class NothingToTrain(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.requires_grad_(False)


class NoParameters(nn.Module):
    def __init__(self, layout):
        super().__init__()

    def forward(self, fields, scalars):
        return fields.expand(-1, 2, -1, -1)


class NewParameter(Plain):
    def middle(self, x):
        self.b.weight = nn.Parameter(self.b.weight.detach().clamp(-1, 1))
        return super().middle(x)


class ReturnsTuple(Plain):
    def forward(self, fields, scalars):
        return super().forward(fields, scalars), None


class ReturnsDict(Plain):
    def forward(self, fields, scalars):
        return {"u": super().forward(fields, scalars)}


class ReturnsArray(Plain):
    def forward(self, fields, scalars):
        return super().forward(fields, scalars).detach().numpy()


class ReturnsComplex(Plain):
    def forward(self, fields, scalars):
        return torch.fft.fft2(super().forward(fields, scalars))


class ReturnsIntegers(Plain):
    def forward(self, fields, scalars):
        return super().forward(fields, scalars).round().long()


class WrongShape(Plain):
    def forward(self, fields, scalars):
        return super().forward(fields, scalars)[:, :1]


class WrongDtypeInside(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.b.half()


class Exits(Plain):
    def middle(self, x):
        raise SystemExit("no licence")


class NormOfOne(Plain):
    """BatchNorm1d takes no batch of one sample while training."""

    def __init__(self, layout):
        super().__init__(layout)
        self.norm = nn.BatchNorm1d(WIDTH)

    def middle(self, x):
        return super().middle(x) + self.norm(x.mean(dim=(2, 3)))[:, :, None, None]


class CannotBeCopied(Plain):
    def __init__(self, layout):
        super().__init__(layout)
        self.stream = (i for i in range(10))


class OwnStateDict(Plain):
    """Renames what it saves, and does not when it loads."""

    def state_dict(self, *args, prefix="", **kwargs):
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        state[f"{prefix}renamed"] = state.pop(f"{prefix}c.weight")
        return state
