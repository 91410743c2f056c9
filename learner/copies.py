"""Copies of a surrogate, whatever a user's model keeps in its attributes.

Averaged weights, validation, export and the rehearsal each use one.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penstock.errors import PenstockError, text_of
from penstock.learner.surrogate import Surrogate


def copied(surrogate: Surrogate) -> Surrogate:
    """Return a deep copy of a surrogate.

    The model may keep tensors that it computed, such as an activation for a plot or weight_norm's `weight`; they are
    copied as values.

    Args:
        surrogate: the original.

    Returns:
        The copy.

    Raises:
        PenstockError: the model holds something that copy.deepcopy can't take.
    """
    try:
        with torch.no_grad(), _CopyingComputed():  # with gradients, a scripted module's copy would depend on it
            return copy.deepcopy(surrogate)
    except Exception as error:  # a user's class may define __deepcopy__
        raise PenstockError(
            f"model: it can't be copied ({type(error).__name__}: {text_of(error)}), as averaging and validation need: "
            "keep no generator, lock or open file in it, or give the class a __deepcopy__"
        ) from error


def follow(mine: nn.Module, theirs: nn.Module, *, but: Collection[str] = ()) -> None:
    """Bring a copy up to date with its original.

    It takes over parameters, buffers and what get_extra_state returns. A buffer of the original may have been assigned
    since, with another shape, or where there was None.

    Args:
        mine: the copy, which is changed in place.
        theirs: the original.
        but: names of parameters that the copy keeps as they are.
    """
    originals = dict(theirs.named_modules())
    parameters = dict(mine.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name not in but:
                parameters[name].copy_(parameter)
        for name, module in mine.named_modules():
            if (original := originals[name]) is not module:
                _follow_buffers(module, original)
                if type(module).get_extra_state is not nn.Module.get_extra_state:
                    module.set_extra_state(copy.deepcopy(original.get_extra_state()))


def _follow_buffers(module: nn.Module, original: nn.Module) -> None:
    buffers, originals = (dict(m.named_buffers(recurse=False)) for m in (module, original))
    for name in buffers.keys() | originals.keys():
        buffer, theirs = buffers.get(name), originals.get(name)
        if theirs is None:
            setattr(module, name, None)
        elif buffer is not None and _kind(buffer) == _kind(theirs) and theirs.layout == torch.strided:
            buffer.copy_(theirs)
        else:
            setattr(module, name, theirs.detach().clone())


def _kind(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.layout, tensor.device


class _CopyingComputed(TorchFunctionMode):
    """Lets copy.deepcopy copy the values of computed tensors, which torch refuses.

    Computed tensors are those with a gradient function.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*args, **(kwargs or {}))
