"""OVSeg without any of the shortcuts, one operation after the other.

It is what the fast paths are compared with, in speed and in labels: crops are cut out
one at a time; all proposals go through CLIP, valid or not; every block sees all tokens;
class maps are fused at the network's resolution, resized, and compared. Each operation
is a program of its own. Independent of the Flax module of CLIP's image tower.
"""

import functools

import jax
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params
from ovs_jax.models import ovseg
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.layers import ACTIVATIONS
from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.regions import Regions, crop_regions, patch_mask
from ovs_jax.ops.resize import linear_taps, resize_positions


def encode_image(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  size: Int[Array, '2'],
  proposed: ovseg.Proposed,
) -> ovseg.Encoded:
  """Cuts and embeds the proposals' crops, to the result of `ovseg.encode_image`.

  Rows of invalid proposals are computed and mean nothing.
  """
  masks = ovseg.full_masks(proposed.mask_logits, image.shape[:2], size)
  regions = cut(config, image, masks)
  keep = patch_mask(regions.masks, config.clip.patch)
  if not config.clip.prompt_depth:
    keep = None
  rows = [
    encode_crops(
      config.clip,
      params['clip']['visual'],
      regions.pixels[i : i + config.chunk],
      None if keep is None else keep[i : i + config.chunk],
    )
    for i in range(0, len(masks), config.chunk)
  ]
  return ovseg.Encoded(
    embeddings=proposed.embeddings,
    regions=jnp.concatenate(rows),
    masks=masks,
    boxes=regions.boxes,
    valid=regions.valid,
    no_object=proposed.no_object,
  )


def cut(
  config: ovseg.OvSegConfig, image: Num[Array, 'h w 3'], masks: Float[Array, 'q h w']
) -> Regions:
  """Cuts the proposals out, one at a time."""
  with jax.disable_jit():
    one = [crop_regions(image, mask[None], config.region) for mask in masks]
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *one)


def encode_crops(
  config: ClipConfig,
  params: Params,
  pixels: Float[Array, 'b s s 3'],
  keep: Bool[Array, 'b n'] | None,
) -> Float[Array, 'b d']:
  """Returns CLIP's embeddings of crops, from the parameters of its image tower."""
  b, s = pixels.shape[:2]
  p, width = config.patch, config.vision_width
  grid = s // p
  x = pixels.reshape(b, grid, p, grid, p, 3).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(b, grid * grid, -1) @ params['conv1']['kernel'].reshape(-1, width)
  hide = lambda x, i: x  # noqa: E731
  if keep is not None:
    prompts = params['mask_prompt']
    hide = lambda x, i: jnp.where(keep[:, :, None], x, prompts[i][None])  # noqa: E731
  x = hide(x, 0)
  token = params['class_embedding'].reshape(1, 1, -1)
  x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, width)), x], axis=1)
  x = x + resize_positions(params['positional_embedding'], (grid, grid))[None]
  x = _norm(x, params['ln_pre'], config.vision_epsilon)
  for i in range(config.vision_layers):
    block = jax.tree.map(lambda leaf, i=i: leaf[i], params['blocks'])
    x = _block(config, block, x)
    if i + 1 < config.prompt_depth:
      x = jnp.concatenate([x[:, :1], hide(x[:, 1:], i + 1)], axis=1)
  return _norm(x[:, 0], params['ln_post'], config.vision_epsilon) @ params['proj']


def _block(config: ClipConfig, params: Params, x: Array) -> Array:
  y = _norm(x, params['ln_1'], config.vision_epsilon)
  q, k, v = (
    jnp.einsum('bnd,dhe->bhne', y, params['attn'][name]['kernel'])
    + params['attn'][name]['bias'][None, :, None]
    for name in 'qkv'
  )
  scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
  mixed = jax.nn.softmax(scores, axis=-1) @ v
  out = params['attn']['out']
  bias = out['bias'].reshape(1, 1, -1)
  x = x + jnp.einsum('bhne,hed->bnd', mixed, out['kernel']) + bias
  y = _norm(x, params['ln_2'], config.vision_epsilon)
  y = ACTIVATIONS[config.activation](_dense(y, params['c_fc']))
  return x + _dense(y, params['c_proj'])


def _dense(x: Array, params: Params) -> Array:
  return x @ params['kernel'] + params['bias'].reshape(1, 1, -1)


def _norm(x: Array, params: Params, epsilon: float) -> Array:
  mean = jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
  scale, bias = (
    params[name].reshape((1,) * (x.ndim - 1) + (-1,)) for name in ('scale', 'bias')
  )
  return (x - mean) / jnp.sqrt(variance + epsilon) * scale + bias


def label_map(
  weights: Float[Array, 'q k'], masks: Float[Array, 'q h w'], size: tuple[int, int]
) -> tuple[Int[Array, 'H W'], Float[Array, 'H W']]:
  """Fuses at the masks' resolution, resizes all class maps and takes the best."""
  scores = fuse(weights, masks)
  for axis in (1, 2):
    scores = _stretch(scores, axis, size[axis - 1])
  return jnp.argmax(scores, axis=0).astype(jnp.int32), jnp.max(scores, axis=0)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _stretch(
  scores: Float[Array, 'k a b'], axis: int, length: int
) -> Float[Array, 'k c d']:
  """Resizes one axis. One program: its steps apart would hold five such arrays."""
  low, high, weight = linear_taps(scores.shape[axis], length)
  t = weight.reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
  first, second = jnp.take(scores, low, axis), jnp.take(scores, high, axis)
  return (1 - t) * first + t * second
