"""OVSeg's proposer with the R101c backbone (its released R101c + ViT-B/16 model)."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ovs_jax.convert.rules import (
  CONV,
  POINT,
  SAME,
  Rule,
  apply,
  attention_rules,
  linear_rules,
  norm_rules,
)
from ovs_jax.models import resnet
from ovs_jax.models.maskformer import PRESETS, MaskFormerConfig, init_maskformer

CLIP_PREFIX = 'clip_adapter.clip_model.'

# Constants that the reference stores beside its parameters: the class weights of the
# loss, CLIP's pixel statistics, and the counters of other flavours of batch norm.
CONSTANTS = (
  r'criterion\.empty_weight',
  r'clip_adapter\.pixel_(mean|std)',
  r'backbone\..*\.num_batches_tracked',
)


def backbone_rules(
  source: str = r'backbone\.', target: str = 'backbone/'
) -> list[Rule]:
  """Returns the table of the ResNet; the arguments are prefixes of both sides."""
  table = []
  for where, path in (
    (r'stem\.conv(?P<conv>\d)', r'stem_conv\g<conv>'),
    (
      r'(?P<stage>res\d)\.(?P<block>\d+)\.(?P<conv>conv\d|shortcut)',
      r'\g<stage>_\g<block>/\g<conv>',
    ),
  ):
    where, path = f'{source}{where}', f'{target}{path}'
    table += [
      Rule(rf'{where}\.weight', f'{path}/conv/kernel', CONV),
      *norm_rules(rf'{where}\.norm', f'{path}/norm'),
      Rule(
        rf'{where}\.norm\.running_(?P<statistic>mean|var)',
        rf'{path}/norm/\g<statistic>',
        SAME,
      ),
    ]
  return table


def head_rules(source: str = r'sem_seg_head\.') -> list[Rule]:
  """Returns the table of pixel decoder, query decoder and the two heads."""
  pixels = rf'{source}pixel_decoder\.'
  conv = rf'{pixels}(?P<conv>(?:adapter|layer)_\d)'
  predictor = rf'{source}predictor\.'
  decoder = rf'{predictor}transformer\.decoder\.'
  layer = rf'{decoder}layers\.(?P<index>\d+)\.'
  ours = r'query_decoder/layer_\g<index>'
  return [
    Rule(rf'{conv}\.weight', r'pixel_decoder/\g<conv>/kernel', CONV),
    *norm_rules(rf'{conv}\.norm', r'pixel_decoder/\g<conv>_norm'),
    *linear_rules(rf'{pixels}mask_features', 'pixel_decoder/mask_features', CONV),
    Rule(rf'{predictor}query_embed\.weight', 'query_decoder/query_embed', SAME),
    *linear_rules(rf'{predictor}input_proj', 'query_decoder/input_proj', POINT),
    *attention_rules(rf'{layer}self_attn', f'{ours}/self_attn'),
    *attention_rules(rf'{layer}multihead_attn', f'{ours}/cross_attn'),
    *linear_rules(rf'{layer}(?P<part>linear[12])', rf'{ours}/\g<part>'),
    *norm_rules(rf'{layer}(?P<part>norm[123])', rf'{ours}/\g<part>'),
    *norm_rules(rf'{decoder}norm', 'query_decoder/norm'),
    *linear_rules(
      rf'{predictor}(?P<head>mask_embed|class_embed)\.layers\.(?P<index>\d)',
      r'\g<head>/layer_\g<index>',
    ),
  ]


def rules() -> list[Rule]:
  """Returns the table of the whole proposer."""
  no_object = Rule(r'clip_adapter\.non_object_embedding', 'no_object', SAME)
  return [*backbone_rules(), *head_rules(), no_object]


def infer_config(source: Mapping[str, np.ndarray]) -> MaskFormerConfig:
  """Returns the sizes of a proposer from the shapes of its tensors.

  What shapes do not tell (attention heads, groups, dilations, dropout) is OVSeg's.

  Raises:
    ValueError: it is not such a proposer.
  """
  head, predictor = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
  needed = (
    'backbone.stem.conv1.weight',
    'backbone.res2.0.conv3.weight',
    f'{head}.mask_features.weight',
    f'{predictor}.query_embed.weight',
    f'{predictor}.transformer.decoder.layers.0.linear1.weight',
    f'{predictor}.class_embed.layers.1.weight',
  )
  missing = [name for name in needed if name not in source]
  if missing:
    raise ValueError(
      f'not an OVSeg proposer with a ResNet backbone: {", ".join(missing)} missing '
      f'from its {len(source)} tensors'
    )
  stem, block, features, queries, feed, embed = (source[k].shape for k in needed)
  config = dataclasses.replace(
    PRESETS['r101c_b16'],
    backbone=resnet.ResNetConfig(
      depths=tuple(
        _count(source, rf'backbone\.res{stage}\.(\d+)\.') for stage in range(2, 6)
      ),
      stem_width=stem[0],
      bottleneck=block[1],
      out_width=block[0],
      multi_grid=resnet.PRESETS['r101c'].multi_grid,
      norm='frozen',
    ),
    pixel_width=features[1],
    mask_dim=features[0],
    num_queries=queries[0],
    width=queries[1],
    feed_forward=feed[0],
    layers=_count(source, rf'{predictor}.transformer.decoder.layers\.(\d+)\.'),
    embed_hidden=embed[1],
    embed_dim=embed[0],
  )
  names = [name for name, sizes in resnet.PRESETS.items() if sizes == config.backbone]
  return dataclasses.replace(config, backbone=names[0]) if names else config


def _count(source: Mapping[str, np.ndarray], pattern: str) -> int:
  found = (re.match(pattern, name) for name in source)
  return len({match[1] for match in found if match})


def shapes(config: MaskFormerConfig) -> dict[str, Any]:
  """Returns the shapes of our parameters, without computing any."""
  return jax.eval_shape(lambda key: init_maskformer(config, key), jax.random.key(0))


def convert(
  source: Mapping[str, np.ndarray], config: MaskFormerConfig | None = None
) -> tuple[MaskFormerConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of OVSeg's proposer.

  Args:
    source: tensors of a whole OVSeg model; those of its CLIP are left to
      `convert.clip`.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a model; lists everything that does not fit.
  """
  own = {k: v for k, v in source.items() if not k.startswith(CLIP_PREFIX)}
  config = config or infer_config(own)
  params = apply(
    own, rules(), shapes(config), what='OVSeg checkpoint', ignore=CONSTANTS
  )
  return config, params
