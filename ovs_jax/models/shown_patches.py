"""CLIP's first blocks for the patches that are shown, where prompts hide the rest.

Fully masked patches hold the same learned tokens in every crop (OVSeg, section 3.4). So
their keys and values are computed once for all crops, and what a block makes of them is
not computed where the next prompts overwrite it. The result is that of all blocks on
all patches, up to rounding.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.models.clip_blocks import ClipBlock

# Programs for so much of the patches at most; above the last, all are computed.
_SHARES, _PARTS = (2, 3), 4


def prompted_blocks(
  block: ClipBlock,
  stack: Mapping[str, Any],
  x: Float[Array, 'b m d'],
  prompts: Sequence[Float[Array, 'n d']],
  keep: Bool[Array, 'b n'],
  *,
  count: int,
) -> Float[Array, 'b m d']:
  """Runs the first blocks of a tower, each after its prompts were put in.

  The largest number of patches that a crop shows decides which of a few programs runs.

  Args:
    block: of the tower.
    stack: parameters of all its blocks, along axis 0.
    x: tokens of the crops, class token first; hidden patches are not read.
    prompts: what hidden patches hold before each of these blocks; one more than there
      are blocks, if prompts follow the last of them.
    keep: patches that are shown.
    count: how many blocks to run, at most as many as there are prompts.

  Returns:
    The tokens after the last of the blocks, and after the prompts that follow it.
  """
  patches = keep.shape[1]
  sizes = sorted({-(-patches * share // _PARTS) for share in _SHARES})
  rows = [_rows(keep, size) for size in (*sizes, patches)]

  def run(places: '_Rows') -> Float[Array, 'b m d']:
    shown = jnp.take_along_axis(x, places.shown[:, :, None], axis=1)
    for i in range(count):
      params = jax.tree.map(lambda leaf, i=i: leaf[i], stack)
      overwritten = i + 1 < len(prompts)
      wanted = places.own if overwritten else places.all
      tokens = _in_a_row(shown, prompts[i])
      shown = block.apply({'params': params}, tokens, rows=(wanted, places.all))
    if count < len(prompts):
      return _in_a_row(shown, prompts[count])[places.all]
    return shown

  most = jnp.max(jnp.sum(keep, axis=1))
  programs = [lambda places=places: run(places) for places in rows]
  return jax.lax.switch(jnp.sum(most > jnp.asarray(sizes)), programs)


@dataclasses.dataclass(frozen=True)
class _Rows:
  """Where tokens are, for crops that show at most so many patches.

  Attributes:
    shown: places of the class token and of the shown patches in a crop, then of others
      that fill up.
    own: places of the crops' tokens in a row of those of all crops, followed by the
      prompts.
    all: where in that row each token of a crop is found.
  """

  shown: Int[Array, 'b v']
  own: Int[Array, 'b v']
  all: Int[Array, 'b m']


def _rows(keep: Bool[Array, 'b n'], size: int) -> _Rows:
  b, n = keep.shape
  order = jnp.argsort(~keep, axis=1, stable=True)
  rank = jnp.argsort(order, axis=1)
  own = jnp.arange(b * (1 + size)).reshape(b, 1 + size)
  hidden = b * (1 + size) + jnp.arange(n)
  patches = jnp.where(keep, own[:, :1] + 1 + rank, hidden)
  first = jnp.zeros((b, 1), order.dtype)
  return _Rows(
    jnp.concatenate([first, 1 + order[:, :size]], axis=1),
    own,
    jnp.concatenate([own[:, :1], patches], axis=1),
  )


def _in_a_row(
  tokens: Float[Array, 'b v d'], prompts: Float[Array, 'n d']
) -> Float[Array, 'r d']:
  return jnp.concatenate([tokens.reshape(-1, tokens.shape[-1]), prompts])
