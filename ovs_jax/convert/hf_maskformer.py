"""Hugging Face's MaskFormer, with a Swin or a ResNet: a classifier, not embeddings.

Its backbone, decoders and mask head are those of OVSeg's proposer, so that training
with names can start from one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import allowed, backbone_families
from ovs_jax.convert import backbones as tables
from ovs_jax.convert.family import Conversion, Family, Options, Settings, buffer
from ovs_jax.convert.maskformer import shapes
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import Source, Tensors, count, matching, shapes_of
from ovs_jax.core.errors import UserError
from ovs_jax.models import backbones
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.models.swin import SwinConfig
from ovs_jax.ops.losses import NO_OBJECT_WEIGHT, SET_WEIGHTS

PIXELS = 'model.pixel_level_module.'
TRANSFORMER = 'model.transformer_module.'
# The class weights of the loss, buffers that follow from the sizes, and a norm of the
# Swin's last output that MaskFormer does not use.
CONSTANTS = (
  r'criterion\.empty_weight',
  r'.*\.(num_batches_tracked|relative_position_index)',
  r'model\.pixel_level_module\.encoder\.model\.layernorm\.(weight|bias)',
)
# What config.json may say of the model and of its decoder, a DETR without its encoder
# and its backbone; shapes tell the sizes.
_SETTINGS: allowed.Table = {
  **allowed.COMMON,
  **allowed.free("""
    backbone_config decoder_config fpn_feature_size mask_feature_size hidden_size
    num_queries num_attention_heads num_hidden_layers no_object_weight
    cross_entropy_weight dice_weight mask_weight use_auxiliary_loss
    output_auxiliary_logits
  """),
  'model_type': allowed.only('maskformer'),
  'backbone': allowed.only(None),
  'backbone_kwargs': allowed.only(None, {}),
  **allowed.fixed('use_pretrained_backbone use_timm_backbone', None, False),
}
_DECODER: allowed.Table = {
  **allowed.COMMON,
  **allowed.free("""
    d_model hidden_size num_queries num_hidden_layers num_attention_heads encoder_layers
    encoder_attention_heads encoder_ffn_dim encoder_layerdrop decoder_layers
    decoder_ffn_dim decoder_layerdrop max_position_embeddings backbone backbone_config
    backbone_kwargs use_pretrained_backbone use_timm_backbone dilation num_channels
    auxiliary_loss classifier_dropout class_cost bbox_cost giou_cost
    mask_loss_coefficient dice_loss_coefficient bbox_loss_coefficient
    giou_loss_coefficient eos_coefficient
  """),
  'model_type': allowed.only('detr'),
  'decoder_attention_heads': allowed.COUNT,
  'dropout': allowed.FRACTION,
  'activation_function': allowed.only('relu'),
  'position_embedding_type': allowed.only('sine'),
  'scale_embedding': allowed.only(False),
}

# What a preprocessor_config.json may say: pictures keep their aspect.
_PIXELS = allowed.pixels(
  *tables.IMAGENET,
  **allowed.free("""
    max_size _max_size size_divisor size_divisibility pad_size do_pad num_labels
    ignore_index reduce_labels do_reduce_labels crop_size
  """),
  do_center_crop=allowed.only(None, False),
  default_to_square=allowed.only(None, False),
  resample=allowed.only(2),
  size=allowed.Accepted(
    'the shortest edge, with or without the longest',
    lambda x: (
      isinstance(x, int)
      or set(x or ()) in ({'shortest_edge'}, {'shortest_edge', 'longest_edge'})
    ),
  ),
)

_FPN = 'model.pixel_level_module.decoder.fpn'
_LAYER = 'model.transformer_module.decoder.layers.<index>'
_HEAD = f"""
  {_FPN}.stem.0                                    pixel_decoder/layer_4       filters
  {_FPN}.stem.1                                    pixel_decoder/layer_4_norm  norm
  model.pixel_level_module.decoder.mask_projection pixel_decoder/mask_features conv
  model.transformer_module.queries_embedder.weight query_decoder/query_embed   same
  model.transformer_module.decoder.layernorm       query_decoder/norm          norm
  {_LAYER}.self_attn       query_decoder/layer_<index>/self_attn         split_attention
  {_LAYER}.encoder_attn    query_decoder/layer_<index>/cross_attn        split_attention
  {_LAYER}.fc<part:1|2>    query_decoder/layer_<index>/linear<part>            linear
  {_LAYER}.self_attn_layer_norm     query_decoder/layer_<index>/norm1          norm
  {_LAYER}.encoder_attn_layer_norm  query_decoder/layer_<index>/norm2          norm
  {_LAYER}.final_layer_norm         query_decoder/layer_<index>/norm3          norm
  class_predictor                                  class_predictor             linear
  mask_embedder.<index>.0                          mask_embed/layer_<index>    linear
"""
for _level in (1, 2, 3):  # theirs count from coarse to fine, from 0
  for _part, _name in (('proj', 'adapter'), ('block', 'layer')):
    _HEAD += f"""
      {_FPN}.layers.{3 - _level}.{_part}.0  pixel_decoder/{_name}_{_level}       filters
      {_FPN}.layers.{3 - _level}.{_part}.1  pixel_decoder/{_name}_{_level}_norm  norm
    """


_INPUT = 'model.transformer_module.input_projection query_decoder/input_proj point'


def rules(config: MaskFormerConfig) -> list[Rule]:
  """Returns the table of the whole model."""
  backbone, encoder = config.backbone_config(), f'{PIXELS}encoder.'
  head = table(_HEAD) + (table(_INPUT) if config.project_input else [])
  if not isinstance(backbone, SwinConfig):
    return [
      *tables.rules('hf_resnet', backbone, encoder, 'backbone/'),
      *head,
    ]
  return [
    *tables.rules('hf_swin', backbone, f'{encoder}model.', 'backbone/'),
    *table('hidden_states_norms.<stage> backbone/norm_<stage> norm', encoder),
    *head,
  ]


def _encoder(source: Source) -> Tensors:
  """Returns the tensors of the backbone by plain names."""
  found = Tensors(source).inside(f'{PIXELS}encoder.')
  return found.inside('model.') or found


def check_settings(
  settings: Mapping[str, Any], backbone: backbones.Config
) -> backbones.Config:
  """Refuses a config.json that says what is not understood.

  Args:
    settings: its contents.
    backbone: from the shapes.

  Returns:
    The backbone with what only config.json says of it.
  """
  decoder = settings.get('decoder_config') or {}
  sections = [('', settings, _SETTINGS), ('decoder_config', decoder, _DECODER)]
  allowed.check('config.json', sections, _PIXELS)
  section = settings.get('backbone_config')
  return tables.with_settings(backbone, section, 'backbone_config')


def infer_config(
  source: Source, settings: Mapping[str, Any] | None = None
) -> MaskFormerConfig:
  """Returns the sizes of a model from the shapes of its tensors.

  What neither shapes nor settings tell (attention heads, groups, strides, dropout) is
  that of the published models.

  Args:
    source: tensors by name.
    settings: the contents of config.json, or None.

  Raises:
    ValueError: it is not such a model, or does something that ours does not.
  """
  needed = (
    f'{PIXELS}decoder.mask_projection.weight',
    f'{TRANSFORMER}queries_embedder.weight',
    f'{TRANSFORMER}decoder.layers.0.fc1.weight',
    'class_predictor.weight',
  )
  features, queries, feed, classes = shapes_of(
    source, needed, what="Hugging Face's MaskFormer"
  )
  backbone = tables.infer_config(_encoder(source))
  backbone = check_settings(settings or {}, backbone)
  decoder = (settings or {}).get('decoder_config') or {}
  return MaskFormerConfig(
    backbone=backbones.named(backbone),
    pixel_width=features[1],
    mask_dim=features[0],
    groups=32,
    num_queries=queries[0],
    width=queries[1],
    heads=decoder.get('decoder_attention_heads', 8),
    feed_forward=feed[0],
    layers=count(source, f'{TRANSFORMER}decoder.layers.'),
    dropout=decoder.get('dropout', 0.1),
    embed_hidden=0,
    embed_dim=0,
    dtype='float32',
    num_classes=classes[0] - 1,
    project_input=f'{TRANSFORMER}input_projection.weight' in source,
  )


def convert(
  source: Source, config: MaskFormerConfig | None = None
) -> tuple[MaskFormerConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of Hugging Face's MaskFormer.

  Args:
    source: its tensors by name.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a model; lists everything that does not fit.
  """
  config = config or infer_config(source)
  backbone, what = config.backbone_config(), 'MaskFormer checkpoint'
  tables.check_kind(_encoder(source), backbone, what=what)
  params = apply(
    source,
    rules(config),
    shapes(config),
    what='Hugging Face MaskFormer',
    ignore=CONSTANTS,
  )
  return config, params


class _MaskFormer(Family):
  """The one layout that there is."""

  model = 'proposer'

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By its queries and its classifier."""
    needed = {f'{TRANSFORMER}queries_embedder.weight', 'class_predictor.weight'}
    return needed <= set(source)

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Keeps the names of the classes, if config.json has them."""
    options.refuse("Hugging Face's MaskFormer")
    constants = matching(source, CONSTANTS)
    held = Tensors(source).without(constants)
    config, params = convert(held, infer_config(held, settings))
    model = {'model': 'proposer', 'proposer': dataclasses.asdict(config)}
    names = (settings or {}).get('id2label')
    if names:
      model['labels'] = [names[key] for key in sorted(names, key=int)]
    return Conversion(model, params, held, tuple(constants))

  def _config(self, model: Mapping[str, Any]) -> MaskFormerConfig:
    """Returns the sizes of a model; raises ValueError if this cannot hold them."""
    config = MaskFormerConfig(**model['proposer'])
    backbone = config.backbone_config()
    if not config.num_classes:
      raise UserError(
        'this proposer gives embeddings for the names of a CLIP; Hugging Face has '
        'MaskFormer with a fixed list of classes only'
      )
    frozen = isinstance(backbone, SwinConfig) or backbone.norm == 'frozen'
    if not frozen or not tables.is_plain(backbone) or config.groups != 32:
      raise UserError(
        "Hugging Face's MaskFormer has pixel decoders with 32 groups, and no ResNet "
        'with the stem, the dilations or the group norms of this one'
      )
    last = backbone.stage_widths()[-1]
    if config.project_input == (last == config.width):
      raise UserError(
        "Hugging Face's MaskFormer has a layer between backbone and decoder where "
        f'their widths differ only; here they are {last} and {config.width}, '
        f'{"with" if config.project_input else "without"} one'
      )
    return config

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """The whole table."""
    return rules(self._config(model))

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of our proposer."""
    return shapes(self._config(model))

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Buffers; the norm that nothing uses is the identity."""
    config = self._config(model)
    backbone = config.backbone_config()
    if '.layernorm.' in name:
      width = backbone.embed_dim * 2 ** (len(backbone.depths) - 1)
      return np.full(width, float(name.endswith('weight')), np.float32)
    return buffer(name, backbone, config.num_classes)

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model."""
    c = self._config(model)
    backbone = c.backbone_config()
    stages = len(backbone.depths)
    labels = model.get('labels') or [f'LABEL_{i}' for i in range(c.num_classes)]
    content = {
      'architectures': ['MaskFormerForInstanceSegmentation'],
      'model_type': 'maskformer',
      'backbone_config': {
        **backbone_families.settings(backbone),
        'out_features': [f'stage{i + 1}' for i in range(stages)],
        'out_indices': [i + 1 for i in range(stages)],
      },
      'decoder_config': {
        'model_type': 'detr',
        'd_model': c.width,
        'num_queries': c.num_queries,
        'decoder_layers': c.layers,
        'decoder_attention_heads': c.heads,
        'decoder_ffn_dim': c.feed_forward,
        'dropout': c.dropout,
        'attention_dropout': 0.0,
        'activation_dropout': 0.0,
        'activation_function': 'relu',
        # Of an encoder that MaskFormer does not have.
        'encoder_layers': c.layers,
        'encoder_attention_heads': c.heads,
        'encoder_ffn_dim': c.feed_forward,
      },
      'fpn_feature_size': c.pixel_width,
      'mask_feature_size': c.mask_dim,
      'no_object_weight': NO_OBJECT_WEIGHT,
      'cross_entropy_weight': SET_WEIGHTS['ce'],
      'dice_weight': SET_WEIGHTS['dice'],
      'mask_weight': SET_WEIGHTS['mask'],
      'use_auxiliary_loss': False,
      'id2label': {str(i): name for i, name in enumerate(labels)},
      'label2id': {name: i for i, name in enumerate(labels)},
    }
    return {'config.json': content}


HF_MASKFORMER = _MaskFormer(
  'hf_maskformer',
  'model.pixel_level_module.* and class_predictor.*: MaskFormer with a Swin or a '
  'ResNet and a fixed list of classes',
)
