"""Sizes of CLIPs by the shapes of their tensors, whatever these are called."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ovs_jax.convert.tensors import Source, Tensors, count, shape_of, shapes_of
from ovs_jax.core.errors import UserError
from ovs_jax.models.clip_config import ClipConfig, ImageTower
from ovs_jax.ops.resize import resize_grid

HEAD_SIZE = 64  # of OpenAI's and OVSeg's CLIPs: heads = width / 64


def sized(
  source: Source,
  *,
  kernel: str,
  tables: tuple[str, str, str],
  embed: tuple[str, int],
  blocks: Mapping[str, str],
  hidden: str | Mapping[str, str],
  what: str,
  **told: Any,
) -> ClipConfig:
  """Returns the sizes of a CLIP of some layout, from the shapes of its tensors.

  Args:
    source: tensors by name.
    kernel: name of the patches' kernel.
    tables: of the tables of positions of images and of texts, and of tokens.
    embed: of the projection of images, and its axis of the joint space.
    blocks: of a tower's blocks, by tower.
    hidden: of a tensor in a block, as long as the hidden layer of its MLP; where they
      differ, by tower.
    what: it should be, for errors.
    **told: fields of the configuration that are known. What shapes do not tell is
      else that of OpenAI's models.
  """
  projection, axis = embed
  found = shapes_of(source, [kernel, projection, *tables], what=what)
  patches, joint, (*_, places, _), (context, _), (vocabulary, text_width) = found
  if len(patches) != 4:
    raise UserError(f'not {what}: its {kernel} has the shape {patches}')
  width, _, _, patch = patches
  first = int(told.get('image_tower', ImageTower()).class_token)
  sizes = {
    'image_size': math.isqrt(places - first) * patch,
    'patch': patch,
    'embed_dim': joint[axis],
    'context_length': context,
    'vocab_size': vocabulary,
    'prompt_depth': 0,
    'dtype': 'float32',
    'remat': False,
    'unroll': 1,
  }
  for tower, size in (('vision', width), ('text', text_width)):
    name = hidden if isinstance(hidden, str) else hidden[tower]
    sizes |= tower_sizes(source, tower, size, blocks[tower], name)
  return ClipConfig(**{**sizes, **told})


def tower_sizes(
  source: Source, tower: str, width: int, blocks: str, hidden: str
) -> dict[str, int]:
  """Returns the fields of a transformer's sizes.

  Args:
    source: tensors by name.
    tower: 'vision' or 'text'.
    width: of its tokens.
    blocks: what its blocks have in front.
    hidden: of a tensor in a block, as long as the hidden layer of its MLP.
  """
  layer = f'{blocks}.0.{hidden}'
  mlp = shape_of(source, layer)[0] if layer in source else 4 * width
  return {
    f'{tower}_width': width,
    f'{tower}_layers': count(source, f'{blocks}.'),
    f'{tower}_heads': max(width // HEAD_SIZE, 1),
    f'{tower}_mlp': 0 if mlp == 4 * width else mlp,
  }


def resized(
  source: Tensors, config: ClipConfig, positions: str, prompts: str | None = None
) -> Tensors:
  """Returns the tensors with tables of positions that fit `config.image_size`.

  Args:
    source: tensors by name.
    config: the wanted sizes.
    positions: name of the table of positions.
    prompts: name of the mask prompts. They belong to positions too; a single one for
      all positions is repeated, which is what it means.
  """
  side = config.image_size // config.patch
  changed, first = {}, int(config.image_tower.class_token)
  if positions in source:
    *before, count, width = shape_of(source, positions)
    if count != first + side * side:
      table = jnp.asarray(source[positions].reshape(count, width))
      new = np.asarray(config.image_tower.resized(table, (side, side)))
      changed[positions] = new.reshape(*before, *new.shape)
  if prompts in source and shape_of(source, prompts)[1] != side * side:
    table = source[prompts]
    if table.shape[1] == 1:
      changed[prompts] = np.repeat(table, side * side, axis=1)
    else:
      how = {'antialias': config.image_tower.antialias}
      new = resize_grid(jnp.asarray(table), (side, side), **how)
      changed[prompts] = np.asarray(new)
  return Tensors(source, changed)
