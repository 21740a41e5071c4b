"""OVSeg's proposers: Swin-B (with ViT-L/14) and R101c (with ViT-B/16)."""

import dataclasses
from typing import Any

import jax

from ovs_jax.convert import backbones as tables
from ovs_jax.convert.backbone_rules import resnet_rules, swin_rules
from ovs_jax.convert.rules import Rule, apply, attention_rules, linear_rules, norm_rules
from ovs_jax.convert.tensors import Source, Tensors, count, shapes_of
from ovs_jax.convert.transforms import CONV, POINT, SAME
from ovs_jax.models import backbones
from ovs_jax.models.maskformer import PRESETS, MaskFormerConfig, init_maskformer

CLIP_PREFIX = 'clip_adapter.clip_model.'

# Constants that the reference stores beside its parameters: the class weights of the
# loss, CLIP's pixel statistics, indices that follow from the window, and the counters
# of other flavours of batch norm.
CONSTANTS = (
  r'criterion\.empty_weight',
  r'clip_adapter\.pixel_(mean|std)',
  r'backbone\..*\.(num_batches_tracked|relative_position_index)',
)


def head_rules(source: str = 'sem_seg_head.') -> list[Rule]:
  """Returns the table of pixel decoder, query decoder and the two heads."""
  pixels = f'{source}pixel_decoder.'
  conv = f'{pixels}<conv:adapter|layer>_<level>'
  predictor = f'{source}predictor.'
  decoder = f'{predictor}transformer.decoder.'
  layer = f'{decoder}layers.<index>.'
  ours = 'query_decoder/layer_<index>'
  return [
    Rule(f'{conv}.weight', 'pixel_decoder/<conv>_<level>/kernel', CONV),
    *norm_rules(f'{conv}.norm', 'pixel_decoder/<conv>_<level>_norm'),
    *linear_rules(f'{pixels}mask_features', 'pixel_decoder/mask_features', CONV),
    Rule(f'{predictor}query_embed.weight', 'query_decoder/query_embed', SAME),
    *linear_rules(f'{predictor}input_proj', 'query_decoder/input_proj', POINT),
    *attention_rules(f'{layer}self_attn', f'{ours}/self_attn'),
    *attention_rules(f'{layer}multihead_attn', f'{ours}/cross_attn'),
    *linear_rules(f'{layer}<part:linear1|linear2>', f'{ours}/<part>'),
    *norm_rules(f'{layer}<part:norm1|norm2|norm3>', f'{ours}/<part>'),
    *norm_rules(f'{decoder}norm', 'query_decoder/norm'),
    *linear_rules(
      f'{predictor}<head:mask_embed|class_embed>.layers.<index>',
      '<head>/layer_<index>',
    ),
  ]


def rules(config: MaskFormerConfig) -> list[Rule]:
  """Returns the table of the whole proposer."""
  swin = backbones.kind(config.backbone_config()) == 'Swin'
  table = swin_rules if swin else resnet_rules
  no_object = Rule('clip_adapter.non_object_embedding', 'no_object', SAME)
  return [*table('backbone.', 'backbone/'), *head_rules(), no_object]


def infer_config(source: Source) -> MaskFormerConfig:
  """Returns the sizes of a proposer from the shapes of its tensors.

  What shapes do not tell (attention heads, groups, dilations, dropout) is OVSeg's.

  Raises:
    ValueError: it is not such a proposer.
  """
  head, predictor = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
  needed = (
    f'{head}.mask_features.weight',
    f'{predictor}.query_embed.weight',
    f'{predictor}.transformer.decoder.layers.0.linear1.weight',
    f'{predictor}.class_embed.layers.1.weight',
  )
  features, queries, feed, embed = shapes_of(source, needed, what='an OVSeg proposer')
  if 'backbone.patch_embed.proj.weight' in source:
    backbone = tables.infer_swin(source, 'backbone.', hugging_face=False)
  else:
    backbone = tables.infer_resnet(source, 'backbone.')
  return dataclasses.replace(
    PRESETS['r101c_b16'],
    backbone=backbones.named(backbone),
    pixel_width=features[1],
    mask_dim=features[0],
    num_queries=queries[0],
    width=queries[1],
    feed_forward=feed[0],
    layers=count(source, rf'{predictor}.transformer.decoder.layers\.(\d+)\.'),
    embed_hidden=embed[1],
    embed_dim=embed[0],
  )


def shapes(config: MaskFormerConfig) -> dict[str, Any]:
  """Returns the shapes of our parameters, without computing any."""
  return jax.eval_shape(lambda key: init_maskformer(config, key), jax.random.key(0))


def convert(
  source: Source, config: MaskFormerConfig | None = None
) -> tuple[MaskFormerConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of OVSeg's proposer.

  Names are taken as they are: the reference inserts a second `pixel_decoder.` into
  those of files that lack a version, and then trains or runs on random ones.

  Args:
    source: tensors of a whole OVSeg model; those of its CLIP are left to
      `convert.clip`.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a model; lists everything that does not fit.
  """
  own = Tensors(source).without(k for k in source if k.startswith(CLIP_PREFIX))
  if config is None:
    config = infer_config(own)
  swin = 'backbone.patch_embed.proj.weight' in own
  if swin or 'backbone.stem.conv1.weight' in own:
    kind = 'Swin' if swin else 'ResNet'
    tables.check_kind(kind, config.backbone_config(), what='OVSeg checkpoint')
  params = apply(
    own, rules(config), shapes(config), what='OVSeg checkpoint', ignore=CONSTANTS
  )
  return config, params
