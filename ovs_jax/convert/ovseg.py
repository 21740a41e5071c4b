"""Whole OVSeg models: the proposer and the adapted CLIP of one official file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import clip, maskformer
from ovs_jax.convert.family import Conversion, Family, Options, Settings, buffer
from ovs_jax.convert.rules import Rule
from ovs_jax.convert.tensors import Source, Tensors, matching
from ovs_jax.models import backbones
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.models.ovseg import PUBLISHED, OvSegConfig
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD, RegionConfig

_PREFIX = maskformer.CLIP_PREFIX
_CLASS_WEIGHTS = 'criterion.empty_weight'
# Of the official evaluation, whatever the backbone.
_SETTINGS = {
  'templates': 'vild',
  'classifier': 'ensemble',
  'weight': 0.7,  # ADE20K's
}
_CHUNK = 128  # regions through CLIP at once


def _plain(source: Source) -> Tensors:
  """Returns the tensors without the prefix of a distributed run."""
  return Tensors(source).rename(lambda name: name.removeprefix('module.'))


def _configs(model: Mapping[str, Any]) -> tuple[MaskFormerConfig, ClipConfig]:
  config = OvSegConfig.from_dict(model)
  config.check_one_clip('the checkpoint')
  return config.proposer, config.clip


class _OvSeg(Family):
  """The one layout that there is."""

  model = 'ovseg'

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By names of both parts."""
    needed = {f'{_PREFIX}visual.proj', 'sem_seg_head.predictor.query_embed.weight'}
    return needed <= set(_plain(source))

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Converts both parts; what the official evaluation takes for them is added."""
    whole = _plain(source)
    rest = whole.without(n for n in whole if n.startswith(_PREFIX))
    proposer, params = maskformer.convert(rest)
    adapted = clip.OVSEG_CLIP.convert(whole, settings, options)
    constants = matching(rest, maskformer.CONSTANTS)
    published = PUBLISHED[backbones.kind(proposer.backbone_config())]
    config = OvSegConfig(
      proposer=proposer,
      clip=ClipConfig.from_dict(adapted.model['clip']),
      region=RegionConfig(
        size=adapted.model['clip']['image_size'],
        threshold=published.threshold,
        fill='mean',
        expand=1.0,
        matting=False,
      ),
      chunk=_CHUNK,
    )
    test = {'shortest': published.shortest, 'longest': published.longest}
    model = {**config.to_dict(), 'model': 'ovseg', **_SETTINGS, 'test': test}
    if _CLASS_WEIGHTS in rest:
      model['trained_classes'] = len(rest[_CLASS_WEIGHTS]) - 1
    named = adapted.tensors.rename(lambda name: f'{_PREFIX}{name}')
    return Conversion(
      model,
      {'proposer': params, 'clip': adapted.params},
      Tensors(rest.without(constants), named),
      (*constants, *(f'{_PREFIX}{name}' for name in adapted.constants)),
    )

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """Those of both parts."""
    proposer, _ = _configs(model)
    return [
      *maskformer.rules(proposer, 'proposer/'),
      *clip.OVSEG_CLIP.rules(model, _PREFIX, 'clip/'),
    ]

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of both parts."""
    proposer, adapted = _configs(model)
    return {'proposer': maskformer.shapes(proposer), 'clip': clip.shapes(adapted)}

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Those of CLIP, the statistics of pixels, and buffers."""
    if name.startswith(_PREFIX):
      return clip.OVSEG_CLIP.constant(name.removeprefix(_PREFIX), model)
    if name.startswith('clip_adapter.pixel_'):
      statistics = CLIP_MEAN if name.endswith('mean') else CLIP_STD
      return 255 * np.asarray(statistics, np.float32).reshape(1, 3, 1, 1)
    proposer, _ = _configs(model)
    return buffer(name, proposer.backbone_config(), model.get('trained_classes', 0))

  def notes(self, model: Mapping[str, Any]) -> list[str]:
    """Those of CLIP."""
    return clip.OVSEG_CLIP.notes(model)


OVSEG = _OvSeg(
  'ovseg',
  'clip_adapter.clip_model.* and sem_seg_head.*: proposer and CLIP in one file',
)
