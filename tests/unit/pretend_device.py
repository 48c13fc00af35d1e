"""A second device on a machine that has none: the CPU computes, but mixing devices is an error.

A GPU refuses to combine its tensors with those of the CPU. So does this device, by the same rules,
which shows what a stage forgets to move. It goes by the name `meta`, the only device that autograd
accepts without hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
CPU_INDICES_ARE_FINE = {
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
}
TRANSFERS = {"aten::_to_copy", "aten::copy_"}


class _Held(Tensor):
    """A tensor of the CPU that says it is elsewhere."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _Held:
        shell: _Held = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        shell.held = held
        return shell

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError("tensors of the pretended device exist inside PretendDevice() only")


class PretendDevice(TorchDispatchMode):
    """Inside this context, tensors on `DEVICE` hold values."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        name = func.name().split(".")[0]
        _refuse_mixture(name, args, tensors)
        target = kwargs.pop("device", None)
        there = any(isinstance(tensor, _Held) for tensor in tensors)
        if target is not None:
            there = torch.device(target).type == DEVICE.type
            kwargs["device"] = torch.device("cpu")
        if there and kwargs.get("generator") is not None:
            raise RuntimeError(f"{name} with a CPU generator on another device")
        shells = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, _Held)}
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        return tree_map(_shell(shells) if there else lambda value: value, result)


def _refuse_mixture(name: str, args: Any, tensors: list[Tensor]) -> None:
    if name in TRANSFERS:
        return
    if name in CPU_INDICES_ARE_FINE and isinstance(args[0], _Held):
        return
    here = [t for t in tensors if not isinstance(t, _Held) and t.dim()]  # scalars may be anywhere
    if here and any(isinstance(tensor, _Held) for tensor in tensors):
        raise RuntimeError(f"{name} got tensors of two devices: {[t.device for t in tensors]}")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _Held) else value


def _shell(known: dict[int, Tensor]) -> Callable[[Any], Any]:
    """Put results into shells; what an operation changed in place keeps the shell it had."""

    def shell(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else _Held(value)

    return shell
