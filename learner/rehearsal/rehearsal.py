"""The rehearsal: what a run does with a model in hours, done once in seconds.

A model that would fail later is refused before anything is solved. The parts are the run's own (Optimization, averaged
weights, Validation, checkpoint, export), on models that are built for the rehearsal and thrown away, on random samples.
So it finds whatever those parts can't do, without a list of such things.

Axes:  B batch, C channels, * the shape of a geometry.
"""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penstock.errors import PenstockError, describe, file_of, raised_by_signal
from penstock.layout import Block, Layout
from penstock.learner.buffers.storage import counted_by
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.weights import load_weights, weights_of
from penstock.learner.copies import copied
from penstock.learner.export.program import contents_of
from penstock.learner.optimization import Optimization
from penstock.learner.rehearsal.free_samples import free_samples, trimmed
from penstock.learner.stream.order import WITHOUT
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation

TEMPORARY = ".rehearsal-"
TOLERANCE = 1e-5  # relative difference of predictions that should be the same: threads may add in another order
BATCH_TOLERANCE = 1e-3  # another batch size may use another algorithm; predictions don't have bfloat16's rounding
NUM_ROWS = 3  # samples that are predicted and validated


def try_out(surrogate: Surrogate, name: str) -> None:
    """Pass two samples and one through a model, and check its outputs.

    This gives lazy parameters their shapes. Modules keep their modes.

    Args:
        surrogate: the surrogate with the model.
        name: the model's name, for messages.

    Raises:
        PenstockError: the model fails, its outputs are not those of the layout, or it has nothing to train.
    """
    modes = {module: module.training for module in surrogate.modules()}  # a user may have put parts of it into eval()
    surrogate.eval()
    for num in (2, 1):
        samples = ("two samples", "one sample")[num == 1]
        with _failing(f"{samples} can't pass through it", surrogate), torch.no_grad():
            arrays = free_samples(surrogate.layout, num, surrogate.device)
            outputs = surrogate.model_output(arrays)
        _check_outputs(outputs, arrays, surrogate.layout, name, samples)
    if not any(parameter.requires_grad for parameter in surrogate.parameters()):
        raise PenstockError(f"model: {name} has no parameter that requires a gradient: there is nothing to train")
    for module, mode in modes.items():
        module.training = mode


def _check_outputs(outputs: object, arrays: Mapping[str, Tensor], layout: Layout, name: str, samples: str) -> None:
    """Check that a model's outputs are tensors in the shapes of the layout's outputs.

    Raises:
        PenstockError: they are not.
    """
    blocks = {block.name: block for block in layout.output_blocks}
    expected = {name: list(arrays[name].shape) for name in blocks}
    asked = f"one tensor, {expected[next(iter(blocks))]}" if len(blocks) == 1 else f"a dict of tensors, {expected}"
    if not isinstance(outputs, dict) or outputs.keys() != blocks.keys():
        kind = f"a dict of {sorted(outputs)}" if isinstance(outputs, dict) else f"a {type(outputs).__name__}"
        raise PenstockError(f"model: {name} returns {kind} and must return {asked}")
    for block, output in outputs.items():
        which = f" as {block}" if len(blocks) > 1 else ""
        if not isinstance(output, Tensor):
            raise PenstockError(f"model: {name} returns a {type(output).__name__}{which} and must return {asked}")
        if list(output.shape) != expected[block]:  # broadcast to the targets' shape it would train, and learn nothing
            raise PenstockError(
                f"model: {name} gives {list(output.shape)}{which} for {samples} and must give {expected[block]}"
            )
        if not output.is_floating_point():
            dtype = str(output.dtype).removeprefix("torch.")
            raise PenstockError(
                f"model: {name} returns {dtype}{which} and must return real numbers: take .real, or .float()"
            )


def rehearse(
    make_surrogate: Callable[[], Surrogate],
    make_step: Callable[[Surrogate], Optimization],
    make_validation: Callable[[Mapping[str, np.ndarray]], Validation],
    *,
    batch_sizes: tuple[int, ...],
    folder: Path,
    must_repeat: bool,
) -> list[str]:
    """Train, average, validate, save and restore a model as a run will.

    torch's random state is the same afterwards.

    Args:
        make_surrogate: builds a new surrogate with random weights, as a resumed run does.
        make_step: builds the optimisation step of a surrogate.
        make_validation: builds the validation on rows, [N, C, *] by array name.
        batch_sizes: sizes of batches that training may meet.
        folder: where checkpoints will lie.
        must_repeat: whether a resumed run has to equal the uninterrupted one bit for bit.

    Returns:
        Lines for the user about what works only in part.

    Raises:
        PenstockError: a run of this model would fail or be wrong; one line, with the place in the user's file.
    """

    def begun() -> Optimization:
        surrogate = make_surrogate()
        with _failing("it can't be set up for training", surrogate):
            return make_step(surrogate)

    for leftover in folder.glob(f"{TEMPORARY}*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with _own_randomness(), TemporaryDirectory(dir=folder, prefix=TEMPORARY) as temporary:
        step = begun()
        notes = _train(step, batch_sizes, begun)
        _validate(step, make_validation)
        notes += _predict(step.averaged)
        with _failing("it can't be saved in a checkpoint", step.surrogate):
            weights = weights_of(step.averaged)
            checkpoint.save(Path(temporary), 1, weights=weights, optimizer=step.state(), buffer=None, meta={}, keep=1)
        before = _Conduct(step, batch_sizes[0])
        del step, weights  # two models beside their optimizers may not fit
        step = begun()
        with _failing("its checkpoint can't be restored", step.surrogate):
            saved = checkpoint.load(Path(temporary))
            load_weights(step.averaged, saved.weights)
            step.load_state(saved.optimizer)
        return notes + before.compare(_Conduct(step, batch_sizes[0]), must_repeat)


def try_export(surrogate: Surrogate) -> str | None:
    """Export a surrogate into memory, as `penstock export` will.

    Args:
        surrogate: the surrogate.

    Returns:
        Why that can't be done; None if it can.
    """
    try:
        with _own_randomness():
            own = surrogate.of_model
            contents_of(own, {}, free_samples(own.layout, 2, torch.device("cpu")))
    except Exception as error:  # from the user's model, or from torch.export at work on it
        reason = str(error) if isinstance(error, PenstockError) else describe(error, file_of(surrogate.model))
        return f"penstock export won't work, while training and penstock predict do: {reason}"
    return None


def _train(step: Optimization, batch_sizes: tuple[int, ...], begun: Callable[[], Optimization]) -> list[str]:
    """Do two steps on the first of the sizes and one on each other; returns notes.

    `begun` builds a step like this one that was not used yet.
    """
    surrogate, parameters = step.surrogate, dict(step.surrogate.named_parameters())
    layout = surrogate.layout
    trials = [(size, layout) for size in (batch_sizes[0], *batch_sizes)]  # the second meets what the first left behind
    if any(block.is_ragged for block in layout.blocks.values()):
        trials.append((batch_sizes[0], trimmed(layout)))
    for size, of_batch in trials:
        samples = "one sample" if size == 1 else f"{size} samples"
        try:
            loss = _step_on_samples(step, size, of_batch)
        except BaseException as error:  # from the user's model
            if raised_by_signal(error):
                raise
            reason = describe(error, file_of(surrogate.model))
            raise PenstockError(
                f"model: a training step on {samples} fails: {reason}{_place_in_forward(begun, size)}"
            ) from error
        if not math.isfinite(loss):
            raise PenstockError(f"model: its loss on random samples is {loss} before any training: see its forward()")
        if not step.is_finite():
            place = _place_in_forward(begun, size)
            raise PenstockError(f"model: its gradient on random samples is not finite{place}: a root or a norm of 0?")
    for name, parameter in surrogate.named_parameters():
        if parameters.get(name) is not parameter:
            raise PenstockError(
                f"model: forward() makes a new parameter {_own(name)}, which is never trained: change it in place"
            )
    idle = [name for name, p in parameters.items() if p.requires_grad and (p.grad is None or not p.grad.any())]
    if len(idle) == sum(parameter.requires_grad for parameter in parameters.values()):
        raise PenstockError("model: no gradient reaches any of its parameters: look for detach(), .data, no_grad()")
    return [f"model: no gradient reaches {', '.join(map(_own, idle))}"] if idle else []


def _step_on_samples(step: Optimization, size: int, layout: Layout | None = None) -> float:
    samples = free_samples(layout or step.surrogate.layout, size * step.num_unrolled, step.surrogate.device)
    return step(samples, step.learning_rate).item()


def _place_in_forward(begun: Callable[[], Optimization], size: int) -> str:
    """The line of the user's file that called what fails in the backward pass.

    It is empty if torch does not know it.
    """
    step = begun()
    file = file_of(step.surrogate.model)
    with warnings.catch_warnings(record=True) as caught, suppress(Exception), torch.autograd.detect_anomaly():
        warnings.simplefilter("always")  # torch warns of the forward pass's traceback before it raises
        for _ in range(2):
            _step_on_samples(step, size)
    lines = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', "".join(str(each.message) for each in caught))
    return f", in the gradient of {file}, line {lines[-1]}" if lines else ""


def _validate(step: Optimization, make_validation: Callable[[Mapping[str, np.ndarray]], Validation]) -> None:
    """Validate before and after a step, which must not change an earlier copy."""
    surrogate = step.surrogate
    samples = free_samples(surrogate.layout, NUM_ROWS, torch.device("cpu"))
    rows = {name: array.numpy() for name, array in samples.items()}
    with _failing("its validation fails", surrogate):
        validation = make_validation(rows)
        copy = copied(step.averaged)
        before, errors = _predictions(copy), validation.errors(step.averaged)
        _step_on_samples(step, 2)
        after = _predictions(copy)
        validation.errors(step.averaged)
    if not math.isfinite(errors.relative_l2.max):
        raise PenstockError("model: in eval() its predictions of random samples are not finite")
    if _difference(before, after) > TOLERANCE:
        raise PenstockError(
            "model: a copy of it changes while it is trained, so it can be neither averaged nor validated: a hook, a "
            "lambda or a global of it holds the model or its tensors"
        )


def _predict(surrogate: Surrogate) -> list[str]:
    """Predict every row with the others, once more, and alone; returns notes."""
    with _failing("it can't predict in eval()", surrogate):
        together, again = _predictions(surrogate), _predictions(surrogate, seed=1)
        alone = torch.cat([_predictions(surrogate, rows=slice(row, row + 1)) for row in range(NUM_ROWS)])
        cut = torch.cat([_predictions(surrogate, rows=slice(row, row + 1), is_cut=True) for row in range(NUM_ROWS)])
    if (difference := _difference(alone, cut)) > BATCH_TOLERANCE and _difference(together, again) <= TOLERANCE:
        raise PenstockError(
            f"model: what it predicts depends on how far a sample is padded (by {difference:.1g}, relative): weigh "
            "sums over points by weights, which are 0 at padding"
        )
    if _difference(together, again) > TOLERANCE:
        return [
            "model: in eval() it predicts something else each time: errors and exported predictions depend on chance"
        ]
    if (difference := _difference(together, alone)) > BATCH_TOLERANCE:
        return [
            f"model: what it predicts for a sample depends on the others in the batch (by {difference:.1g}, relative): "
            "validation errors hold only for batches like those"
        ]
    return []


class _Conduct:
    """What a model predicts during training, and what it keeps beside its state."""

    def __init__(self, step: Optimization, batch_size: int):
        surrogate = step.surrogate
        with _failing("its training can't go on", surrogate):
            self.predictions = [_predictions(step.averaged), _predictions(surrogate)]
            self.kept = _kept(surrogate)
            torch.manual_seed(0)
            self.loss = torch.tensor(_step_on_samples(step, batch_size))
            self.predictions_after = _predictions(surrogate)

    def compare(self, restored: _Conduct, must_repeat: bool) -> list[str]:
        """Compare it with that of the restored model; returns notes.

        Raises:
            PenstockError: the restored model predicts something else, or its training differs where it must repeat.
        """
        differing = [name for name, value in self.kept.items() if not _are_equal(value, restored.kept.get(name))]
        where = f" (it may be {', '.join(differing)})" if differing else ""
        difference = max(map(_difference, self.predictions, restored.predictions))
        if difference > TOLERANCE:
            raise PenstockError(
                f"model: restored from a checkpoint it predicts something else (by {difference:.1g}, relative): what "
                f"it keeps besides parameters{where} must be in register_buffer() or get_extra_state()"
            )
        pairs = ((self.loss, restored.loss), (self.predictions_after, restored.predictions_after))
        if max(_difference(*pair) for pair in pairs) <= 10 * TOLERANCE:
            return []
        text = f"model: a resumed training differs from an uninterrupted one: what forward() uses{where}"
        text += " must be in register_buffer() or get_extra_state(), and random numbers come from torch's own generator"
        if must_repeat:
            raise PenstockError(f"{text}, or give {WITHOUT}")
        return [text]


def _kept(surrogate: Surrogate) -> dict[str, object]:
    """Values that the model's modules keep beside their state.

    They are attributes that are numbers or arrays, and buffers that are not persistent.
    """
    kept = {}
    for prefix, module in surrogate.model.named_modules():
        own = {name: value for name, value in vars(module).items() if name != "training"}
        own |= {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}
        for name, value in own.items():
            if isinstance(value, Tensor | np.ndarray | int | float):
                kept[f"{prefix}.{name}".lstrip(".")] = value.detach().clone() if isinstance(value, Tensor) else value
    return kept


def _are_equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and (a.layout != torch.strided or (a.shape == b.shape and torch.equal(a, b)))
    return np.array_equal(a, b)


def _predictions(surrogate: Surrogate, *, seed: int = 0, rows: slice = slice(NUM_ROWS), is_cut: bool = False) -> Tensor:
    """Predictions for random samples, the same each time, [B, values] on the CPU.

    A copy of the model makes them, because a forward pass may change a model. is_cut: one row, without its padding.
    """
    layout = surrogate.layout
    samples = free_samples(layout, NUM_ROWS, surrogate.device)
    arrays = {name: array[rows] for name, array in samples.items()}
    given = {name: _cut(layout.blocks[name], arrays) for name in arrays} if is_cut else arrays
    torch.manual_seed(seed)
    with torch.no_grad():
        outputs = copied(surrogate).eval().predict(given)
    found = []
    for block in layout.output_blocks:
        values = outputs[block.name]
        if block.is_ragged:
            values = F.pad(values, (0, arrays[counted_by(block)].shape[-1] - values.shape[-1]))
        found.append(values.flatten(1))
    return torch.cat(found, dim=1).cpu()


def _cut(block: Block, arrays: Mapping[str, Tensor]) -> Tensor:
    """A block's array of one sample without the padding."""
    array = arrays[block.name]
    return array[..., : int(arrays[counted_by(block)][0, -1].count_nonzero())] if block.is_ragged else array


def _difference(a: Tensor, b: Tensor) -> float:
    """Relative difference in the L2 norm.

    It is infinite if the shapes differ or a value is not finite.
    """
    if a.shape != b.shape or not bool(a.isfinite().all() and b.isfinite().all()):
        return math.inf
    return float((a - b).double().norm() / a.double().norm().clamp_min(1e-30))


def _own(name: str) -> str:
    """A parameter's name as the model's author knows it."""
    return name.removeprefix("model.")


@contextmanager
def _own_randomness() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


@contextmanager
def _failing(what: str, surrogate: Surrogate) -> Iterator[None]:
    """Raise what the user's model raises as PenstockError, in one line with its place."""
    try:
        yield
    except PenstockError:
        raise
    except BaseException as error:
        if raised_by_signal(error):
            raise
        raise PenstockError(f"model: {what}: {describe(error, file_of(surrogate.model))}") from error
