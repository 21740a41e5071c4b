"""Puts a proposer and a CLIP together into one OVSeg checkpoint.

What OVSeg calls replacing the CLIP: the text tower never changes, so that any adapted
image tower fits any proposer trained with it.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place
from ovs_jax.core.types import Params
from ovs_jax.inference.parts import add_clips, load_clip
from ovs_jax.models.clip_config import ImageTower
from ovs_jax.models.mask_prompts import add_prompts, without_prompts
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.stored import load
from ovs_jax.settings import Settings

Parts = tuple[Params, dict[str, Any]]


def assemble(config: Settings, workdir: Place) -> dict[str, Any]:
  """Writes `workdir/model`; see `put_together`."""
  save(put_together(config), workdir / 'model')
  return {'model': str(workdir / 'model')}


def save(parts: Parts, directory: Place) -> None:
  """Writes what `put_together` returned."""
  save_model(directory, *parts)


def put_together(config: Settings) -> Parts:
  """Returns the OVSeg of `config.init`, and what its checkpoint says of itself.

  Raises:
    FileNotFoundError, ValueError: a part is missing or of another kind, or the two
      do not fit each other.
  """
  proposer, stored = _load_proposer(config.init.proposer)
  found = load_clip(config.init.clip)
  sizes, clip = found.config, found.params
  if config.init.prompts:
    sizes, clip = add_prompts(sizes, clip, config.init.prompts)
  depth = config.test.prompt_depth
  if depth == -1:
    depth = sizes.prompt_depth
  clip_config = {**dataclasses.asdict(sizes), 'prompt_depth': depth}
  if config.test.clip_side:
    clip_config, clip = _resized(
      clip_config, clip, config.test.clip_side, sizes.image_tower
    )
  trained = sizes.prompt_depth
  if depth not in (0, trained):
    raise UserError(
      f'config.test.prompt_depth is {depth}; the CLIP in '
      f'{config.init.clip} has mask prompts of depth {trained}, so that the choice is '
      f'{trained} or 0 (none)'
    )
  if not depth:
    clip = without_prompts(clip)
  model = OvSegConfig.from_dict(
    {
      'proposer': stored['proposer'],
      'clip': clip_config,
      'region': {**vars(config.region), 'size': clip_config['image_size']},
      'chunk': config.test.chunk,
    }
  )
  params = {'proposer': proposer, 'clip': clip}
  asked = config.test.clips, config.test.clip_weights
  model, params = add_clips(model, params, *asked)
  description = {
    **model.to_dict(),
    'model': 'ovseg',
    'templates': config.text.templates,
    'classifier': config.test.classifier,
    'weight': config.test.weight,
    'test': {'shortest': config.test.shortest, 'longest': config.test.longest},
  }
  if stored.get('agnostic'):
    if config.test.classifier != 'clip':
      raise UserError(
        f'the proposer in {config.init.proposer} finds masks and tells no classes '
        f"apart: set config.test.classifier='clip', not {config.test.classifier!r}"
      )
    description['agnostic'] = True
  if 'training_names' in stored:  # older proposers do not say
    description['training_names'] = stored['training_names']
  return params, description


def _resized(
  config: dict[str, Any], params: Params, side: int, kind: ImageTower
) -> tuple[dict[str, Any], Params]:
  """Makes the positions of a CLIP fit crops of another size."""
  if side % config['patch'] or config['prompt_depth']:
    raise UserError(
      f'config.test.clip_side {side} must be a multiple of the patch, '
      f'{config["patch"]}, and needs config.test.prompt_depth=0, as mask prompts '
      'belong to one size'
    )
  visual = params['visual']
  grid = 2 * (side // config['patch'],)
  table = kind.resized(jnp.asarray(visual['positional_embedding']), grid)
  visual = {**visual, 'positional_embedding': np.asarray(table)}
  return {**config, 'image_size': side}, {**params, 'visual': visual}


def _load_proposer(directory: str) -> tuple[Params, dict[str, Any]]:
  """Reads a proposer, or the one inside an OVSeg."""
  kinds = ('proposer', 'ovseg')
  found = load(directory, kinds=kinds, what='proposer checkpoint')
  stored = found.stored
  if stored['proposer'].get('num_classes'):
    raise UserError(
      f'the MaskFormer in {directory} has a fixed list of '
      f'{stored["proposer"]["num_classes"]} classes and no embeddings; train it on '
      f'with names first: recipe "proposer" and --config.init.proposer={directory}'
    )
  whole = found.kind == 'proposer'
  return (found.params if whole else found.params['proposer']), stored
