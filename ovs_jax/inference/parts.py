"""The CLIP of a checkpoint: one by itself, or that inside an OVSeg."""

import dataclasses

from ovs_jax.core.files import Path
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.stored import Checkpoint, load


def load_clip(directory: Path) -> Checkpoint:
  """Reads a CLIP with its mask prompts, if it has some.

  Args:
    directory: of a CLIP, or of an OVSeg that has one.

  Raises:
    FileNotFoundError, ValueError: see `models.stored.load`.
  """
  found = load(directory, kinds=('clip', 'ovseg'), what='CLIP checkpoint')
  if not isinstance(found.config, OvSegConfig):
    return found
  clip, params = found.config.clip, found.params['clip']
  return dataclasses.replace(found, kind='clip', config=clip, params=params)
