"""How the values of foreign tensors are laid out anew, and back."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ovs_jax.core.errors import UserError

Shape = tuple[int, ...]
Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Transform:
  """How one source tensor becomes one or more parameters, and back.

  Attributes:
    split: from the tensor and the shapes of the parameters to the parameters, whose
      shapes are to be compared; raises ValueError if they cannot be made.
    join: the inverse.
  """

  split: Callable[[np.ndarray, Sequence[Shape]], Arrays]
  join: Callable[[Arrays], np.ndarray]


def _head_split(x: np.ndarray, shape: Shape) -> np.ndarray:
  """Divides the last axis of a projection into heads."""
  if len(shape) != x.ndim + 1 or shape[-2] * shape[-1] != x.shape[-1]:
    raise UserError(f'gives {x.shape}, whose last axis does not fit {shape}')
  return x.reshape(*x.shape[:-1], *shape[-2:])


def _split_packed(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  if x.shape[0] % len(shapes):
    names = 'query, key and value' if len(shapes) == 3 else 'key and value'
    raise UserError(f'has {x.shape[0]} rows, which are not {names}')
  parts = np.split(x, len(shapes))
  return [_head_split(p.T, s) for p, s in zip(parts, shapes, strict=True)]


def _split_out(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  (shape,) = shapes
  if len(shape) != 3 or x.ndim != 2 or shape[0] * shape[1] != x.shape[1]:
    raise UserError(f'gives {x.T.shape}, whose first axis does not fit {shape}')
  return [x.T.reshape(*shape[:2], x.shape[0])]


def _split_point(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  if x.shape[2:] != (1, 1):
    raise UserError(f'has the shape {x.shape}, not that of a 1x1 convolution')
  return [x[:, :, 0, 0].T]


def _permutation(*axes: int) -> Transform:
  def split(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
    if x.ndim != len(axes):
      raise UserError(f'has {x.ndim} dimensions, {len(axes)} were expected')
    return [x.transpose(axes)]

  return Transform(split, lambda parts: parts[0].transpose(np.argsort(axes)))


def _leading(count: int) -> Transform:
  def split(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
    if x.shape[:count] != (1,) * count:
      raise UserError(f'has the shape {x.shape}, which does not begin with 1')
    return [x.reshape(x.shape[count:])]

  return Transform(
    split, lambda parts: parts[0].reshape(*(1,) * count, *parts[0].shape)
  )


# The value as it is.
SAME = Transform(lambda x, shapes: [x], lambda parts: parts[0])
# With one axis of length 1 before it, or two.
ROW = _leading(1)
VECTOR = _leading(2)
# PyTorch's (out, in) to Flax's (in, out).
LINEAR = _permutation(1, 0)
# PyTorch's (out, in, y, x) to Flax's (y, x, in, out).
CONV = _permutation(2, 3, 1, 0)
# A transposed convolution's (in, out, y, x) to our (in, y, x, out).
UPCONV = _permutation(0, 2, 3, 1)
# A 1x1 convolution that we write as a dense layer.
POINT = Transform(_split_point, lambda parts: parts[0].T[:, :, None, None])
# Packed rows q, k, v (or k, v) to as many kernels (in, heads, head size), or biases
# (heads, ...).
QKV = Transform(
  _split_packed,
  lambda parts: np.concatenate(
    [p.reshape(*p.shape[:-2], p.shape[-2] * p.shape[-1]).T for p in parts]
  ),
)
# One of those that is not packed, to its kernel, or bias.
PROJECTION = Transform(
  lambda x, shapes: [_head_split(x.T, shapes[0])],
  lambda parts: parts[0].reshape(*parts[0].shape[:-2], -1).T,
)
# The output projection to (heads, head size, out).
OUT = Transform(_split_out, lambda parts: parts[0].reshape(-1, parts[0].shape[-1]).T)
