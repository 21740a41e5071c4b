"""A float64 NumPy Swin with Microsoft's names, by the definition and not by windows.

Every token looks at every other one; those outside of its window are masked.
"""

from math import erf
from typing import Any

import numpy as np
from numpy_models import Weights, layer_norm, linear, softmax

SWIN: dict[str, Any] = {
  'embed_dim': 4,
  'depths': [2, 1, 2],
  'heads': [1, 2, 4],
  'window': 4,
}


def swin_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  """Returns the tensors of the backbone with a norm for each stage."""
  width = c['embed_dim']
  shapes = {
    'patch_embed.proj.weight': (width, 3, 4, 4),
    'patch_embed.proj.bias': (width,),
  }
  norms = {'patch_embed.norm': width}
  for stage, (depth, heads) in enumerate(zip(c['depths'], c['heads'], strict=True)):
    width = c['embed_dim'] * 2**stage
    for block in range(depth):
      name = f'layers.{stage}.blocks.{block}'
      norms |= {f'{name}.norm1': width, f'{name}.norm2': width}
      table = ((2 * c['window'] - 1) ** 2, heads)
      shapes[f'{name}.attn.relative_position_bias_table'] = table
      for part, size in (
        ('attn.qkv', (3 * width, width)),
        ('attn.proj', (width, width)),
        ('mlp.fc1', (4 * width, width)),
        ('mlp.fc2', (width, 4 * width)),
      ):
        shapes |= {f'{name}.{part}.weight': size, f'{name}.{part}.bias': size[:1]}
    if stage < len(c['depths']) - 1:
      merge = f'layers.{stage}.downsample'
      shapes[f'{merge}.reduction.weight'] = (2 * width, 4 * width)
      norms[f'{merge}.norm'] = 4 * width
    norms[f'norm{stage}'] = width
  for name, width in norms.items():
    shapes |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
  return shapes


def window_attention(
  w: Weights, name: str, x: np.ndarray, *, heads: int, side: int, shift: int
) -> np.ndarray:
  """Attention of a padded grid (y, x, c) among the tokens that share a window."""
  rows, columns, width = x.shape
  place = np.indices((rows, columns)).reshape(2, -1)  # of every token
  cell = np.stack([(place[i] - shift) % n for i, n in enumerate((rows, columns))])
  group = np.concatenate([cell // side, place < shift])  # what must be equal
  together = (group[:, :, None] == group[:, None, :]).all(axis=0)
  dy, dx = (cell % side)[:, :, None] - (cell % side)[:, None, :] + side - 1
  table = w[f'{name}.relative_position_bias_table']
  bias = table[dy * (2 * side - 1) + dx]  # n m heads
  q, k, v = np.split(linear(w, f'{name}.qkv', x.reshape(-1, width)), 3, axis=1)
  size, parts = width // heads, []
  for h in range(heads):
    own = slice(h * size, (h + 1) * size)
    scores = q[:, own] @ k[:, own].T / np.sqrt(size) + bias[:, :, h]
    parts.append(softmax(np.where(together, scores, -1e9)) @ v[:, own])
  return linear(w, f'{name}.proj', np.concatenate(parts, axis=1)).reshape(x.shape)


def pad(x: np.ndarray, multiple: int) -> np.ndarray:
  """Pads (y, x, c) at the end with zeros."""
  extra = [(0, -n % multiple) for n in x.shape[:2]]
  return np.pad(x, [*extra, (0, 0)])


def swin(w: Weights, c: dict[str, Any], image: np.ndarray) -> list[np.ndarray]:
  """Features (y, x, c) of a normalised image (h, w, 3)."""
  x = pad(image, 4)
  patches = x.reshape(x.shape[0] // 4, 4, x.shape[1] // 4, 4, 3)
  x = np.einsum('yixjc,ocij->yxo', patches, w['patch_embed.proj.weight'])
  x = layer_norm(w, 'patch_embed.norm', x + w['patch_embed.proj.bias'])
  gelu = np.vectorize(lambda value: value * (1 + erf(value / 2**0.5)) / 2)
  features = []
  for stage, (depth, heads) in enumerate(zip(c['depths'], c['heads'], strict=True)):
    for block in range(depth):
      name = f'layers.{stage}.blocks.{block}'
      y = window_attention(
        w,
        f'{name}.attn',
        pad(layer_norm(w, f'{name}.norm1', x), c['window']),
        heads=heads,
        side=c['window'],
        shift=c['window'] // 2 if block % 2 else 0,
      )
      x = x + y[: x.shape[0], : x.shape[1]]
      y = linear(w, f'{name}.mlp.fc1', layer_norm(w, f'{name}.norm2', x))
      x = x + linear(w, f'{name}.mlp.fc2', gelu(y))
    features.append(layer_norm(w, f'norm{stage}', x))
    if stage < len(c['depths']) - 1:
      y = pad(x, 2)
      y = [y[0::2, 0::2], y[1::2, 0::2], y[0::2, 1::2], y[1::2, 1::2]]
      merge = f'layers.{stage}.downsample'
      y = layer_norm(w, f'{merge}.norm', np.concatenate(y, axis=-1))
      x = y @ w[f'{merge}.reduction.weight'].T
  return features
