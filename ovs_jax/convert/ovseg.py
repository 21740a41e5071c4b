"""Whole OVSeg models: the proposer and the adapted CLIP of one official file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import clip, maskformer
from ovs_jax.convert.family import Conversion, Family, Options
from ovs_jax.convert.rules import Rule
from ovs_jax.convert.tensors import Source, Tensors, matching
from ovs_jax.models import backbones
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.swin import relative_index
from ovs_jax.ops.losses import NO_OBJECT_WEIGHT
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD, RegionConfig

_PREFIX = maskformer.CLIP_PREFIX
_CLASS_WEIGHTS = 'criterion.empty_weight'
# Of the official evaluation; the mask threshold belongs to the backbone.
_THRESHOLDS = {'Swin': 0.4, 'ResNet': 0.5}
_SETTINGS = {
  'templates': 'vild',
  'classifier': 'ensemble',
  'weight': 0.7,  # ADE20K's
  'test': {'shortest': 640, 'longest': 2560},
}
_CHUNK = 128  # regions through CLIP at once


def _plain(source: Source) -> Tensors:
  """Returns the tensors without the prefix of a distributed run."""
  return Tensors(source).rename(lambda name: name.removeprefix('module.'))


def _recognise(source: Source, settings: Mapping[str, Any] | None) -> bool:
  del settings
  names = set(_plain(source))
  return {f'{_PREFIX}visual.proj', 'sem_seg_head.predictor.query_embed.weight'} <= names


def _convert(
  source: Source, settings: Mapping[str, Any] | None, options: Options
) -> Conversion:
  whole = _plain(source)
  rest = whole.without(n for n in whole if n.startswith(_PREFIX))
  proposer, params = maskformer.convert(rest)
  adapted = clip.OVSEG_CLIP.convert(whole, settings, options)
  constants = matching(rest, maskformer.CONSTANTS)
  kind = backbones.kind(proposer.backbone_config())
  config = OvSegConfig(
    proposer=proposer,
    clip=ClipConfig(**adapted.model['clip']),
    region=RegionConfig(
      size=adapted.model['clip']['image_size'],
      threshold=_THRESHOLDS[kind],
      fill='mean',
      expand=1.0,
      matting=False,
    ),
    chunk=_CHUNK,
  )
  model = {**config.to_dict(), 'model': 'ovseg', **_SETTINGS}
  if _CLASS_WEIGHTS in rest:
    model['trained_classes'] = len(rest[_CLASS_WEIGHTS]) - 1
  held = rest.without(constants)
  named = adapted.tensors.rename(lambda name: f'{_PREFIX}{name}')
  return Conversion(
    model,
    {'proposer': params, 'clip': adapted.params},
    Tensors(held, named),
    (*constants, *(f'{_PREFIX}{name}' for name in adapted.constants)),
  )


def _configs(model: Mapping[str, Any]) -> tuple[MaskFormerConfig, ClipConfig]:
  config = OvSegConfig.from_dict(model)
  return config.proposer, config.clip


def _rules(model: Mapping[str, Any]) -> list[Rule]:
  proposer, _ = _configs(model)
  return [
    *maskformer.rules(proposer, 'proposer/'),
    *clip.layout_rules(model, 'ovseg_clip', _PREFIX, 'clip/'),
  ]


def _shapes(model: Mapping[str, Any]) -> dict[str, Any]:
  proposer, adapted = _configs(model)
  return {'proposer': maskformer.shapes(proposer), 'clip': clip.shapes(adapted)}


def _constant(name: str, model: Mapping[str, Any]) -> np.ndarray:
  """Returns what the reference stores beside its parameters."""
  if name.startswith(_PREFIX):
    return clip.OVSEG_CLIP.constant(name.removeprefix(_PREFIX), model)
  if name.endswith('relative_position_index'):
    window = _configs(model)[0].backbone_config().window
    return relative_index(window).astype(np.int64)
  if name.endswith('num_batches_tracked'):
    return np.zeros((), np.int64)
  if name == _CLASS_WEIGHTS:
    weights = np.ones(model['trained_classes'] + 1, np.float32)
    weights[-1] = NO_OBJECT_WEIGHT
    return weights
  statistics = CLIP_MEAN if name.endswith('mean') else CLIP_STD
  return 255 * np.asarray(statistics, np.float32).reshape(1, 3, 1, 1)


def _notes(model: Mapping[str, Any]) -> list[str]:
  return clip.notes({'clip': dataclasses.asdict(_configs(model)[1])}, layout='ovseg')


OVSEG = Family(
  clue='clip_adapter.clip_model.* and sem_seg_head.*: proposer and CLIP in one file',
  model='ovseg',
  recognise=_recognise,
  convert=_convert,
  rules=_rules,
  shapes=_shapes,
  constant=_constant,
  notes=_notes,
)
