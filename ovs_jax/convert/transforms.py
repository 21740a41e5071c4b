"""How the values of foreign tensors are laid out anew, and back."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Shape = tuple[int, ...]
Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Transform:
  """How one source tensor becomes one or more parameters, and back.

  Attributes:
    split: from the tensor and the shapes of the parameters to the parameters; raises
      ValueError if they do not fit.
    join: the inverse.
  """

  split: Callable[[np.ndarray, Sequence[Shape]], Arrays]
  join: Callable[[Arrays], np.ndarray]


def _check(x: np.ndarray, shape: Shape) -> np.ndarray:
  if x.shape != tuple(shape):
    raise ValueError(f'gives {x.shape} instead of {tuple(shape)}')
  return x


def _head_split(x: np.ndarray, shape: Shape) -> np.ndarray:
  """Divides the last axis of a projection into heads."""
  if len(shape) != x.ndim + 1 or shape[-2] * shape[-1] != x.shape[-1]:
    raise ValueError(f'gives {x.shape}, whose last axis does not fit {shape}')
  return _check(x.reshape(*x.shape[:-1], *shape[-2:]), shape)


def _split_qkv(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  if x.shape[0] % 3:
    raise ValueError(f'has {x.shape[0]} rows, which are not query, key and value')
  return [_head_split(p.T, s) for p, s in zip(np.split(x, 3), shapes, strict=True)]


def _split_out(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  (shape,) = shapes
  if len(shape) != 3 or x.ndim != 2 or shape[0] * shape[1] != x.shape[1]:
    raise ValueError(f'gives {x.T.shape}, whose first axis does not fit {shape}')
  return [_check(x.T.reshape(*shape[:2], x.shape[0]), shape)]


def _permutation(axes: Shape, back: Shape) -> Transform:
  def split(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
    if x.ndim != len(axes):
      raise ValueError(f'has {x.ndim} dimensions, {len(axes)} were expected')
    return [_check(x.transpose(axes), shapes[0])]

  return Transform(split, lambda parts: parts[0].transpose(back))


def _split_point(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  if x.shape[2:] != (1, 1):
    raise ValueError(f'has the shape {x.shape}, not that of a 1x1 convolution')
  return [_check(x[:, :, 0, 0].T, shapes[0])]


# The value as it is.
SAME = Transform(lambda x, shapes: [_check(x, shapes[0])], lambda parts: parts[0])
# PyTorch's (out, in) to Flax's (in, out).
LINEAR = _permutation((1, 0), (1, 0))
# PyTorch's (out, in, y, x) to Flax's (y, x, in, out).
CONV = _permutation((2, 3, 1, 0), (3, 2, 0, 1))
# A transposed convolution's (in, out, y, x) to our (in, y, x, out).
UPCONV = _permutation((0, 2, 3, 1), (0, 3, 1, 2))
# A 1x1 convolution that we write as a dense layer.
POINT = Transform(_split_point, lambda parts: parts[0].T[:, :, None, None])
# Packed rows q, k, v to three kernels (in, heads, head size), or biases (heads, ...).
QKV = Transform(
  _split_qkv,
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
