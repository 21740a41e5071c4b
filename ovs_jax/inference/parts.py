"""The CLIP of a checkpoint: one by itself, or that inside an OVSeg."""

import dataclasses
from collections.abc import Sequence

from ovs_jax.core.files import Path
from ovs_jax.core.types import Params
from ovs_jax.models.clip_mix import clip_key
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.stored import Checkpoint, load


def load_clip(directory: Path) -> Checkpoint:
  """Reads a CLIP with its mask prompts, if it has some.

  Args:
    directory: of a CLIP, or of an OVSeg that has one.

  Raises:
    FileNotFoundError, ValueError: see `models.stored.load`; or it has several.
  """
  found = load(directory, kinds=('clip', 'ovseg'), what='CLIP checkpoint')
  if not isinstance(found.config, OvSegConfig):
    return found
  found.config.check_one_clip(directory)
  clip, params = found.config.clip, found.params['clip']
  return dataclasses.replace(found, kind='clip', config=clip, params=params)


def add_clips(
  config: OvSegConfig,
  params: Params,
  directories: Sequence[Path],
  weights: Sequence[float],
) -> tuple[OvSegConfig, Params]:
  """Returns an OVSeg with further CLIPs, whose probabilities are averaged with its own.

  Args:
    config: of the OVSeg.
    params: its parameters; they are not changed.
    directories: of CLIPs, or of OVSegs that have one each. They compute in the first
      one's dtype.
    weights: of all CLIPs, those first that it had. (): what it says itself, and if
      there are more now, the same for all.

  Raises:
    FileNotFoundError, ValueError: see `load_clip`; or weights that cannot be.
  """
  found = [load_clip(directory) for directory in directories]
  count = len(config.clips)
  more = {clip_key(count + i): one.params for i, one in enumerate(found)}
  dtype = config.clip.dtype
  others = (dataclasses.replace(one.config, dtype=dtype) for one in found)
  config = dataclasses.replace(
    config,
    others=(*config.others, *others),
    clip_weights=tuple(weights) or (() if found else config.clip_weights),
  )
  return config, {**params, **more}
