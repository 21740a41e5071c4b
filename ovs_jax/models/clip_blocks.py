"""CLIP's transformer: one block, and the blocks of a tower as one scan."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.flops import recomputes
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.models.layers import ACTIVATIONS, Attention, layer_norm, linear


@dataclasses.dataclass(frozen=True)
class Tower:
  """What the image tower and the text tower of a CLIP have in common.

  Attributes:
    width: of the tokens.
    layers: number of blocks.
    heads: number of attention heads.
    mlp: hidden units of a block's MLP.
    activation: of the MLP, from `layers.ACTIVATIONS`.
    epsilon: of the layer norms.
    dtype: of the computation; parameters are float32.
    remat: whether to recompute blocks in the backward pass.
    unroll: blocks per iteration of the scan.
    norm_after: whether norms come behind attention and MLP, and not before them.
    gated: whether MLPs are SwiGLU (Shazeer, 2020), with the SiLU in place of
      `activation`.
    inner_norms: whether attention and MLP have a norm before their last projection.
    key_bias: whether keys are projected with a bias.
  """

  width: int
  layers: int
  heads: int
  mlp: int
  activation: str
  epsilon: float
  dtype: Any
  remat: bool
  unroll: int
  norm_after: bool
  gated: bool
  inner_norms: bool
  key_bias: bool


class ClipBlock(nn.Module):
  """CLIP's pre-norm transformer block, and what others made of it (see `Tower`)."""

  tower: Tower

  @nn.compact
  def __call__(
    self,
    x: Float[Array, '*b n d'],
    mask: Bool[Array, '*any n n'] | None = None,
    *,
    first_only: bool = False,
    rows: tuple[Int[Array, 'c m1'], Int[Array, 'c m2']] | None = None,
    angles: Float[Array, 'n p'] | None = None,
  ) -> Float[Array, 'c m1 d']:
    """Returns the tokens after attention and MLP.

    Args:
      x: tokens. With `rows`, those of the whole batch in a row.
      mask: allowed attention, or None for all.
      first_only: whether to return the first token alone, which sees all of them.
      rows: for each of the batch, the tokens that are returned and those that are seen.
      angles: by which queries and keys of these tokens are turned (`ops.rotary`).
    """
    t = self.tower
    norm = functools.partial(layer_norm, dtype=t.dtype, epsilon=t.epsilon)
    y = query = x if t.norm_after else norm('ln_1')(x)
    turns = None if angles is None else (angles[:1] if first_only else angles, angles)
    if rows is not None:
      x = x[rows[0]]
    elif first_only:
      x, query = x[:, :1], y[:, :1]
    attention = Attention(
      t.heads,
      t.dtype,
      key_bias=t.key_bias,
      norm_epsilon=t.epsilon if t.inner_norms else 0.0,
      name='attn',
    )
    y = attention(query, y, y, mask, rows=rows, angles=turns)
    x = x + (norm('ln_1')(y) if t.norm_after else y)
    y = self._mlp(x if t.norm_after else norm('ln_2')(x))
    return x + (norm('ln_2')(y) if t.norm_after else y)

  def _mlp(self, x: Float[Array, 'c m d']) -> Float[Array, 'c m d']:
    t = self.tower
    y = linear(t.mlp, name='c_fc', dtype=t.dtype)(x)
    if t.gated:
      y = jax.nn.silu(linear(t.mlp, name='c_gate', dtype=t.dtype)(x)) * y
    else:
      y = ACTIVATIONS[t.activation](y)
    if t.inner_norms:
      y = layer_norm('ln_mlp', t.dtype, t.epsilon)(y)
    return linear(t.width, name='c_proj', dtype=t.dtype)(y)


class ClipBlocks(nn.Module):
  """The blocks of a tower as one scan; parameters are stacked along axis 0.

  A scan compiles once for all blocks, and with `remat` inside it stores only the inputs
  of the blocks.
  """

  tower: Tower

  def setup(self) -> None:
    """Makes the block; its parameters have no level of their own in their paths."""
    self.block = ClipBlock(self.tower)
    nn.share_scope(self, self.block)

  def __call__(
    self,
    x: Float[Array, 'b n d'],
    mask: Bool[Array, '*any n n'] | None = None,
    *,
    prompts: Float[Array, 'p m d'] | None = None,
    keep: Bool[Array, 'b m'] | None = None,
    span: tuple[int, int] | None = None,
    collect: bool = False,
    angles: Float[Array, 'n a'] | None = None,
  ) -> tuple[Float[Array, 'b n d'], Float[Array, 'l b n d'] | None]:
    """Runs the blocks.

    Args:
      x: tokens; patches are the last of them.
      mask: allowed attention, or None for all.
      prompts: what overwrites the patches outside `keep` after the first p blocks that
        run, in their order.
      keep: patches that are shown.
      span: runs the blocks from the first of the numbers up to the other; None is all.
      collect: whether to return the tokens after each block, too.
      angles: by which queries and keys are turned in every block (`ops.rotary`).

    Returns:
      The tokens after the last block; and, with `collect`, after each, stacked.
    """
    start, end = span or (0, self.tower.layers)
    count = end - start
    if not count:
      return x, None
    overwrite = None
    if prompts is not None:
      deep = min(len(prompts), count)
      prompts = jnp.pad(prompts[:deep], ((0, count - deep), (0, 0), (0, 0)))
      overwrite = jnp.arange(count) < deep

    def run(block: ClipBlock, x: Array, *given: Any) -> tuple[Array, Array | None]:
      prompt, overwrite, keep, mask, angles = given
      x = block(x, mask, angles=angles)
      if prompt is not None:
        shown = keep[:, :, None] | ~overwrite
        first = x.shape[1] - keep.shape[1]  # behind the class token, if there is one
        patches = jnp.where(shown, x[:, first:], prompt[None].astype(x.dtype))
        x = jnp.concatenate([x[:, :first], patches], axis=1)
      return x, x if collect else None

    scan = nn.scan(
      nn.remat(run, prevent_cse=False) if recomputes(self.tower.remat) else run,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast),
      length=count,
      unroll=min(self.tower.unroll, count),
    )
    if count < self.tower.layers:
      part = functools.partial(jax.tree.map, lambda leaf: leaf[start:end])
      scan = nn.map_variables(scan, 'params', trans_in_fn=part)
    return scan(self.block, x, prompts, overwrite, keep, mask, angles)
