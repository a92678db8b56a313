"""How much memory a network's activations take: every tensor that its operations make is counted while it lives.

On torch's meta device nothing is computed, so the same code that runs tells what it will need at full size.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class AllocationTrace(TorchDispatchMode):
    """Counts bytes of tensors made inside the ``with`` block; what an operation uses within itself is not seen."""

    def __init__(self, *existing: Tensor) -> None:
        """Tensors in ``existing`` are there already: views of them cost nothing."""
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in existing)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.live_bytes -= size


class FusedAttention(TorchFunctionMode):
    """Attention takes no more than its result, as the fused kernels of CPUs and cards do; for the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is scaled_dot_product_attention:
            query, _, value = args
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def trace_peak(module: torch.nn.Module, *inputs: Tensor) -> int:
    """Bytes that a forward pass takes at most beside weights and inputs: on the meta device, with fused attention."""
    weights = [*module.parameters(), *module.buffers()]
    with torch.inference_mode(), FusedAttention(), AllocationTrace(*weights, *inputs) as trace:
        module(*inputs)
    return trace.peak_bytes
