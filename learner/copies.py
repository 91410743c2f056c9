"""Copies of a surrogate: the averaged one, a validation's, an export's; whatever a user's model keeps in itself."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penstock.errors import PenstockError, text_of
from penstock.learner.surrogate import Surrogate


def copied(surrogate: Surrogate) -> Surrogate:
    """A deep copy, also of a model that keeps what it computed: an activation for a plot, weight_norm's `weight`.

    Raises PenstockError for a model that holds what copy.deepcopy can't take.
    """
    try:
        with torch.no_grad(), _CopyingComputed():  # a scripted module's copy would be computed from it otherwise
            return copy.deepcopy(surrogate)
    except Exception as error:  # a user's class may have a __deepcopy__ of its own
        raise PenstockError(
            f"model: it can't be copied ({type(error).__name__}: {text_of(error)}), as averaging and validation need: "
            "keep no generator, lock or open file in it, or give the class a __deepcopy__"
        ) from error


def follow(mine: nn.Module, theirs: nn.Module, *, but: Collection[str] = ()) -> None:
    """Brings a copy up to date with its original: parameters, buffers, and what get_extra_state gives.

    A buffer may have been assigned since, with another shape, or where there was None. but: names of parameters that
    the copy keeps as they are.
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
    """Lets copy.deepcopy take tensors that have a gradient function, which torch refuses: as values."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*args, **(kwargs or {}))
