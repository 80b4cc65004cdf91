"""A GPU that is pretended: what is moved there is computed on the CPU, but may not meet what stayed behind.

A machine without a GPU cannot run the code that moves tensors, and a tensor made on the wrong device is found only
where there is one. Within `PretendedGpu` a tensor that was moved to ``cuda``, or made from one that was, says that it
is there, and a call of torch that mixes both kinds fails as it would. It sees calls from Python, not a backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
# Copies between devices, what reads a shape, and what an optimiser does to gradients, which come from a backward pass.
_MAY_MIX = ("copy_", "view_as", "__set__", "_has_compatible_shallow_copy_type", "load_state_dict", "backward")
_OF_OPTIMISERS = ("_fused", "_foreach")


class PretendedGpu(TorchFunctionMode):
    """A block in which ``cuda`` is a place of its own."""

    def __init__(self) -> None:
        super().__init__()
        # Storages are kept, so that no other tensor gets the address of one that was there.
        self._there: dict[int, Any] = {}

    def holds(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor was moved there."""
        return tensor.untyped_storage()._cdata in self._there

    def _put(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            storage = value.untyped_storage()
            self._there[storage._cdata] = storage
        return value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "_parse_to":  # of a module: the calls that follow name the device too
            return func(*args, **kwargs)
        flat, _ = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        there = [self.holds(x) for x in tensors]
        if name == "__get__" and getattr(func, "__self__", None) is torch.Tensor.device:
            return GPU if there[0] else func(*args, **kwargs)
        if name in ("numpy", "__array__") and any(there):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        target = next((place for x in flat if (place := _place(x)) is not None), None)
        moved = tree_map(lambda x: "cpu" if _place(x) == "cuda" else x, (args, kwargs))
        if target is None and name == "cpu":
            target = "cpu"
        if target is not None and tensors and name in ("to", "cpu"):
            found = func(*moved[0], **moved[1])
            found = found.clone() if found.untyped_storage()._cdata == tensors[0].untyped_storage()._cdata else found
            return self._put(found) if target == "cuda" else found
        self._check(name, args, tensors, there)
        found = func(*moved[0], **moved[1])
        if target == "cuda" or (any(there) and target is None):
            if target == "cuda" and name in ("as_tensor", "tensor"):
                found = found.clone()
            tree_map(self._put, found)
        return found

    def _check(self, name: str, args: Any, tensors: list[torch.Tensor], there: list[bool]) -> None:
        if name in _MAY_MIX or name.startswith(_OF_OPTIMISERS) or not any(there):
            return
        if name == "gru":  # whose rows of each step are counted on the CPU
            tensors = [x for x in tensors if x.is_floating_point()]
            there = [self.holds(x) for x in tensors]
        if name in ("__getitem__", "__setitem__", "index_put_"):
            # A tensor may be indexed by one on the CPU. Values are copied from anywhere, but not to chosen elements.
            index = [x for x in tree_flatten(args[1])[0] if isinstance(x, torch.Tensor)]
            met = [args[0], *(x for x in index if self.holds(x)), *(args[2:] if index else ())]
            tensors = [x for x in met if isinstance(x, torch.Tensor)]
            there = [self.holds(x) for x in tensors]
        if any(there) and any(not here and x.ndim > 0 for x, here in zip(tensors, there, strict=True)):
            raise RuntimeError(f"expected all tensors of {name} to be on the same device, found cuda:0 and cpu")


def _place(x: Any) -> str | None:
    """Return the device that an argument names."""
    if isinstance(x, torch.device):
        return x.type
    return x if isinstance(x, str) and x in ("cpu", "cuda") else None
