"""Which ATen operators a kept network may call.

Each computes its result from its arguments and does nothing else: no files, no code, no random
numbers, no memory that was not written, nothing changed in place. What only training needs is left
out. A model that needs more can have more: add the name after reading what the operator does.
"""

from collections.abc import Callable
from typing import Any

import torch  # noqa: TID253  (imported where a PyTorch model is loaded only)

ELEMENTWISE = """
abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
bitwise_xor ceil celu clamp clamp_max clamp_min clone cos cosh div elu eq erf erfc exp exp2 expm1
floor floor_divide fmod ge gelu gt hardsigmoid hardswish hardtanh isfinite isinf isnan le
leaky_relu log log10 log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor logit lt
masked_fill maximum minimum mish mul nan_to_num ne neg pow prelu reciprocal relu relu6 remainder
round rsqrt rsub selu sigmoid sign silu sin sinh softplus sqrt sub tan tanh threshold trunc
where
"""
LINEAR = """
addmm baddbmm bmm bilinear conv1d conv2d convolution einsum linear matmul mm mv outer
scaled_dot_product_attention
"""
NORMS = """
_native_batch_norm_legit_no_training _softmax _log_softmax batch_norm group_norm layer_norm
log_softmax native_group_norm native_layer_norm rms_norm softmax
"""
REDUCTIONS = """
all amax amin any argmax argmin avg_pool1d avg_pool2d adaptive_avg_pool1d cummax cumsum logsumexp
max max_pool1d mean min norm prod std sum topk var
"""
SHAPES = """
_to_copy _unsafe_view alias arange bucketize cat chunk constant_pad_nd diagonal embedding expand
flatten flip full full_like gather index index_select linspace narrow one_hot ones_like pad permute
repeat reshape roll scalar_tensor select slice sort split split_with_sizes squeeze stack sym_size t
tile to transpose tril triu unbind unflatten unsqueeze view where zeros_like
"""
ALLOWED = frozenset(f"{ELEMENTWISE} {LINEAR} {NORMS} {REDUCTIONS} {SHAPES}".split())


def operator(name: str) -> Callable[..., Any]:
    """Return the operator ``aten.<operator>.<overload>``.

    Raises:
        ValueError: if it is not allowed, or there is none of that name.
    """
    library, _, rest = name.partition(".")
    base, _, overload = rest.partition(".")
    if library != "aten" or base not in ALLOWED:
        raise ValueError(f"operator {name!r} is not allowed in a bundle")
    packet = getattr(torch.ops.aten, base, None)
    if packet is None or overload not in packet.overloads():
        raise ValueError(f"this PyTorch has no operator {name!r}")
    found: Callable[..., Any] = getattr(packet, overload)
    if found._schema.is_mutable:  # type: ignore[attr-defined]  # noqa: SLF001
        raise ValueError(f"operator {name!r} changes its arguments")
    return found
