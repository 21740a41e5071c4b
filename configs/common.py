"""What all configurations have in common: every key, and how a file of them ends.

A configuration file calls `base(name, mode)`, changes keys, and returns
`finish(config, arg)`, where `arg` is what follows the colon in `--config=FILE:arg`:
nothing, or `smoke` for the tiny model on a handful of embedded pictures. The keys are
declared in `ovs_jax.settings`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import ml_collections

from ovs_jax import settings
from ovs_jax.core.lookup import lookup
from ovs_jax.models import maskformer


def base(name: str, mode: str) -> ml_collections.ConfigDict:
  """Returns all keys with their defaults; results go to runs/<name>."""
  config = settings.Settings(name, mode).to_config()
  config.eval.checkpoint = config.get_ref('checkpoint')
  return config


def follow(
  stage: ml_collections.ConfigDict, pipeline: ml_collections.ConfigDict
) -> None:
  """Lets a stage have its pipeline's data set and mesh, also when flags change them.

  Of the same data set, a stage may have set another variant or fold, which it keeps.
  """
  usual = base('', stage.mode).dataset
  own = {
    field
    for field in usual
    if stage.dataset.name == pipeline.dataset.name
    and stage.dataset[field] != usual[field]
  }
  for section, kept in (('dataset', own), ('mesh', set())):
    for field in pipeline[section]:
      if field not in kept:
        stage[section][field] = pipeline[section].get_ref(field)


def in_order(
  config: ml_collections.ConfigDict,
  stages: Mapping[str, ml_collections.ConfigDict],
  arg: str,
) -> ml_collections.ConfigDict:
  """Makes a pipeline of its stages, which follow its seed, data set and mesh.

  Args:
    config: of the pipeline.
    stages: by name, in order.
    arg: see `finish`.
  """
  for name, stage in stages.items():
    stage.name = name
    stage.seed = config.get_ref('seed')
    follow(stage, config)
  config.order = tuple(stages)
  config.stages = ml_collections.ConfigDict(dict(stages))
  return finish(config, arg)


def finish(
  config: ml_collections.ConfigDict, arg: str, *, applied: Iterable[str] = ()
) -> ml_collections.ConfigDict:
  """Applies `arg` and locks the keys.

  Args:
    config: to finish.
    arg: what followed the colon.
    applied: what else may follow it, and has been applied already.

  Raises:
    UserError: `arg` is none of these, not 'smoke', and not empty.
  """
  known = dict.fromkeys(word for word in (*applied, 'smoke') if word)
  if arg:
    lookup(known, arg, 'word after the colon')
  if arg == 'smoke':
    stages = [config] if 'stages' not in config else list(config.stages.values())
    for stage in {id(c): c for c in [config, *stages]}.values():
      _smoke(stage)
    config.name = f'{config.name}_smoke'
  return config.lock()


# Backbones of the same kind with which `smoke` compiles in seconds.
_SMOKE_BACKBONES = {'r101c': 'r_mini', 'swin_base': 'swin_mini'}


def _small(dataset: str) -> str:
  return re.sub(r'^scenes/(parted|parts)\b', r'scenes/smoke_\1', dataset)


def _smoke(config: ml_collections.ConfigDict) -> None:
  """The tiny model, a few steps, a handful of pictures."""
  if config.proposer.backbone in _SMOKE_BACKBONES:
    backbone = _SMOKE_BACKBONES[config.proposer.backbone]
    config.proposer.update(dataclasses.asdict(maskformer.PRESETS['tiny']))
    config.proposer.backbone = backbone
    config.train.shortest = (48, 64, 96)
    config.train.crop = 64
    config.train.max_targets = 12
  with_parts = config.dataset.variant in ('parted', 'parts')
  config.dataset.variant = f'smoke_{config.dataset.variant}' if with_parts else 'smoke'
  config.train.also = tuple(map(_small, config.train.also))
  config.suite.datasets = tuple(map(_small, config.suite.datasets))
  config.optimize_programs = False  # compiling is most of the time
  config.clip.unroll = 1
  config.proposer.layers = 1
  language = config.coseg.language
  language.encoder_layers = 1
  language.decoder_layers = min(language.decoder_layers, 1)
  config.train.update(steps=4, epochs=0.0)
  config.train.batch_size = min(8, config.train.batch_size)
  if config.train.patch_weight:
    config.train.update(batch_size=16, patch_sides=(config.clip.patch,))
  config.train.log_every = 1
  config.train.save_every = 2
  config.optimizer.warmup = 1
  config.train.disk_megabytes = min(500, config.train.disk_megabytes)
  config.test.shortest = min(128, config.test.shortest)
  config.test.longest = min(512, config.test.longest)
  config.mining.shortest = min(128, config.mining.shortest)
  config.mining.chunk = 8
  config.mining.min_score = -1.0
  # After a few steps the proposer is sure of nothing.
  config.region.threshold = 0.1
  config.mining.min_area = 1
  config.systems.images = 2
  config.systems.side = min(128, config.systems.side)
  config.systems.resamples = 10
