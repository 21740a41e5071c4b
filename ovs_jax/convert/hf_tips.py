"""TIPSv2 folders of Hugging Face."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import allowed, pictures
from ovs_jax.convert.clip import ClipFamily, shapes
from ovs_jax.convert.clip_sizes import resized, sized
from ovs_jax.convert.family import Conversion, Options, Settings
from ovs_jax.convert.hf_clip import BLOCK, activation_of, hidden_act
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import Source, Tensors, matching
from ovs_jax.convert.tokenizer_file import TIPS, read_tokenizer, write_tokenizer
from ovs_jax.convert.transforms import Transform
from ovs_jax.core.errors import UserError
from ovs_jax.models import image_kinds
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clip_presets import TIPS_PIXELS, TIPS_TEXT

_IMAGE = 'vision_model.embeddings.'
_KERNEL = f'{_IMAGE}patch_embeddings.projection.weight'
_POSITIONS, _REGISTERS = f'{_IMAGE}position_embeddings', f'{_IMAGE}register_tokens'
_TOKENS = 'text_model.embeddings.token_embedding.weight'
_BLOCKS = 'vision_model.encoder.layer'
_TEMPERATURE = 'temperature'
# Layer scales are folded into the layers before them; hidden patches of pretraining.
_CONSTANTS = (
  rf'{re.escape(_BLOCKS)}\.\d+\.layer_scale[12]\.lambda1',
  re.escape(f'{_IMAGE}mask_token'),
)

_RULES = """
  text_model.embeddings.token_embedding.weight  text/token_embedding/embedding same
  text_model.final_layer_norm                   text/ln_final                  norm
  vision_model.layernorm                        visual/ln_post                 norm
"""
_EMBEDDINGS = """
  cls_token                    class_embedding      vector
  register_tokens              register_tokens      row
  patch_embeddings.projection  conv1                conv
  position_embeddings          positional_embedding row
"""
_VISION_BLOCK = """
  norm<i:1|2>                      ln_<i>      norm
  attention.<part:q|k|v>_proj      attn/<part> heads
  attention.o_proj                 attn/out    out
"""
_MLP = 'mlp.fc1 c_fc linear mlp.fc2 c_proj linear'
_GATED = """
  mlp.gate_proj c_gate linear mlp.up_proj c_fc linear mlp.down_proj c_proj linear
"""
_LAST = {False: 'mlp.fc2', True: 'mlp.down_proj'}  # of the MLP, by `use_swiglu_ffn`
# Cosines are divided by a temperature; the parameter is the logarithm of its inverse.
_INVERSE = Transform(
  lambda x, shapes: [np.asarray(-np.log(x), x.dtype)],
  lambda parts: np.asarray(np.exp(-parts[0]), parts[0].dtype),
)

_TOWER: allowed.Table = {
  **allowed.COMMON,
  **allowed.free('hidden_size num_hidden_layers'),
  'num_attention_heads': allowed.COUNT,
  'hidden_act': allowed.NAME,
  'layer_norm_eps': allowed.POSITIVE,
}
_TOWERS: dict[str, allowed.Table] = {
  'text': {
    **_TOWER,
    **allowed.free('intermediate_size vocab_size'),
    'max_position_embeddings': allowed.COUNT,
    'pad_token_id': allowed.INDEX,
    'scale_sqrt_depth': allowed.FLAG,
    'pooling_epsilon': allowed.only(1e-8),
    'model_type': allowed.only('tipsv2_text_model'),
  },
  'vision': {
    **_TOWER,
    **allowed.free("""
      image_size patch_size mlp_ratio layerscale_value drop_path_rate
      num_register_tokens stage_names out_features out_indices _out_features
      _out_indices apply_layernorm reshape_hidden_states
    """),
    'num_channels': allowed.only(3),
    'qkv_bias': allowed.only(True),
    'use_swiglu_ffn': allowed.FLAG,
    'model_type': allowed.only('tipsv2_vision_model'),
  },
}
_TOP: allowed.Table = {
  **allowed.COMMON,
  **allowed.free('text_config vision_config'),
  'temperature_init_value': allowed.POSITIVE,
  'model_type': allowed.only('tipsv2'),
}
_PICTURES = {**pictures.HUGGING_FACE, 'do_normalize': allowed.FLAG}
# What `transformers` takes for the keys that a config.json leaves out.
_BOTH = {'num_attention_heads': 12}
_DEFAULTS: dict[str, dict[str, Any]] = {
  'text': {
    **_BOTH,
    'hidden_act': 'relu',
    'layer_norm_eps': 1e-5,
    'max_position_embeddings': 64,
    'pad_token_id': 0,
    'scale_sqrt_depth': True,
  },
  'vision': {
    **_BOTH,
    'hidden_act': 'gelu',
    'layer_norm_eps': 1e-6,
    'use_swiglu_ffn': False,
  },
}
_USUAL_TEMPERATURE = 0.005065968260169029


def rules(*, gated: bool) -> list[Rule]:
  """Returns the table, of towers with SwiGLU or without."""
  return [
    Rule(_TEMPERATURE, 'logit_scale', _INVERSE),
    *table(_RULES),
    *table(_EMBEDDINGS, _IMAGE, 'visual/'),
    *table(BLOCK, 'text_model.encoder.layers.<layer>.', 'text/blocks/'),
    *table(
      _VISION_BLOCK + (_GATED if gated else _MLP),
      f'{_BLOCKS}.<layer>.',
      'visual/blocks/',
    ),
  ]


def infer_config(source: Source, settings: Settings, options: Options) -> ClipConfig:
  """Returns the sizes of a TIPSv2: shapes first, then config.json.

  Raises:
    ValueError: there is no config.json, it is not such a model, or has something that
      ours has not.
  """
  text, vision = _sections(settings)
  gated = vision['use_swiglu_ffn']
  kind = image_kinds.tips(source[_REGISTERS].shape[1], gated=gated)
  activation = activation_of(options.activation or vision['hidden_act'])
  of_text = activation_of(options.activation or text['hidden_act'])
  read = read_tokenizer(settings, text.get('vocab_size', 32_000))
  pad = text['pad_token_id']
  if read.get('pad', pad) != pad:
    raise UserError(
      f'the tokenizer fills up with the id {read["pad"]}, pad_token_id of config.json '
      f'is {pad}: they belong to different models'
    )
  reader = dataclasses.replace(
    TIPS_TEXT,
    activation='' if of_text == activation else of_text,
    scale_tokens=text['scale_sqrt_depth'],
    **{'pad': pad, **read},
  )
  return sized(
    source,
    kernel=_KERNEL,
    tables=(_POSITIONS, _TOKENS, _TOKENS),  # texts have no table of positions
    embed=('vision_model.layernorm.weight', 0),
    blocks={'vision': _BLOCKS, 'text': 'text_model.encoder.layers'},
    hidden={
      'vision': f'mlp.{"up_proj" if gated else "fc1"}.bias',
      'text': 'mlp.fc1.bias',
    },
    what='a TIPSv2 of Hugging Face',
    image_tower=kind,
    text_tower=reader,
    context_length=text['max_position_embeddings'],
    pixels=pictures.hugging_face(settings, TIPS_PIXELS),
    **{
      'activation': activation,
      'vision_heads': vision['num_attention_heads'],
      'text_heads': text['num_attention_heads'],
      'vision_epsilon': float(vision['layer_norm_eps']),
      'text_epsilon': float(text['layer_norm_eps']),
      **{k: x for k, x in options.sizes.items() if k != 'activation'},
    },
  )


def _sections(settings: Settings) -> tuple[dict[str, Any], ...]:
  """Returns what config.json says of texts and of images, checked."""
  says = 'the heads and the activations of a TIPSv2'
  return allowed.towers(settings, says, _TOP, _TOWERS, _PICTURES, _DEFAULTS)


def _folded(source: Tensors, config: ClipConfig, temperature: float) -> Tensors:
  """Returns what our parameters hold: layers that are scaled, and a temperature."""
  changed = {}
  for i in range(config.vision_layers):
    block = f'{_BLOCKS}.{i}.'
    layers = ('attention.o_proj', _LAST[config.image_tower.gated])
    for name, layer in zip(('layer_scale1', 'layer_scale2'), layers, strict=True):
      scale = source[f'{block}{name}.lambda1']
      for part in ('weight', 'bias'):
        value = source[f'{block}{layer}.{part}']
        changed[f'{block}{layer}.{part}'] = value * scale.reshape(
          -1, *(1,) * (value.ndim - 1)
        )
  given = source[_TEMPERATURE] if _TEMPERATURE in source else np.float32(temperature)
  # Up to rounding; what comes back is what the parameter stands for.
  held = _INVERSE.split(np.asarray(given, np.float32), [()])
  changed[_TEMPERATURE] = _INVERSE.join(held)
  return Tensors(source, changed)


class _HfTips(ClipFamily):
  """Hugging Face's Tipsv2Model."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By the second class token."""
    found = {name.removeprefix('module.') for name in source}
    return {_REGISTERS, _TOKENS} <= found

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes what the shapes do not tell from config.json."""
    source = Tensors(source).rename(lambda name: name.removeprefix('module.'))
    config = options.resizing(infer_config(source, settings, options))
    constants = matching(source, _CONSTANTS)
    usual = (settings or {}).get('temperature_init_value', _USUAL_TEMPERATURE)
    held = _folded(source, config, float(usual)).without(constants)
    held = resized(held, config, _POSITIONS)
    params = apply(
      held,
      rules(gated=config.image_tower.gated),
      shapes(config),
      what='TIPSv2 of Hugging Face',
    )
    model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
    return Conversion(model, params, held, tuple(constants))

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """The whole table."""
    config = self.holdable(model)
    image = config.image_tower
    usual = image_kinds.tips(image.registers, gated=image.gated)
    text = config.text_tower
    kind = (text.causal, text.hide_padding, text.pool, text.positions, text.projection)
    if image != usual or kind != (False, True, 'mean', 'sinusoidal', 'none'):
      raise UserError('this CLIP is no TIPSv2; use --export=open_clip')
    return rules(gated=image.gated)

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Layer scales of 1, since they are folded, and nothing for hidden patches."""
    width = ClipConfig.from_dict(model['clip']).vision_width
    if name.endswith('lambda1'):
      return np.ones(width, np.float32)
    return np.zeros((1, width), np.float32)

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the model, of its pictures, and of its tokenizer."""
    config = ClipConfig.from_dict(model['clip'])
    return {
      'config.json': write_settings(config),
      allowed.PROCESSOR: pictures.to_hugging_face(
        config.pixels, config.image_size, processor='Tipsv2ImageProcessor'
      ),
      **write_tokenizer(dataclasses.asdict(config.text_tower), TIPS),
    }


def write_settings(config: ClipConfig) -> dict[str, Any]:
  """Returns the contents of config.json."""

  def tower(name: str, **more: Any) -> dict[str, Any]:
    one = config.vision if name == 'vision' else config.text
    return {
      'model_type': f'tipsv2_{name}_model',
      'hidden_act': hidden_act(one.activation),
      'hidden_size': one.width,
      'num_hidden_layers': one.layers,
      'num_attention_heads': one.heads,
      'layer_norm_eps': one.epsilon,
      **more,
    }

  gated, width = config.image_tower.gated, config.vision_width
  # Of SwiGLU two thirds of the hidden units are left, in eights.
  ratio = config.vision.mlp * 1.5 / width if gated else config.vision.mlp / width
  return {
    'architectures': ['Tipsv2Model'],
    'model_type': 'tipsv2',
    'text_config': tower(
      'text',
      intermediate_size=config.text.mlp,
      max_position_embeddings=config.context_length,
      vocab_size=config.vocab_size,
      pad_token_id=config.text_tower.pad,
      scale_sqrt_depth=config.text_tower.scale_tokens,
    ),
    'vision_config': tower(
      'vision',
      image_size=config.image_size,
      patch_size=config.patch,
      num_channels=3,
      mlp_ratio=ratio,
      use_swiglu_ffn=gated,
      num_register_tokens=config.image_tower.registers,
    ),
  }


HF_TIPS = _HfTips(
  'hf_tips',
  'vision_model.embeddings.register_tokens in a folder with config.json, which says '
  'heads, activations and the temperature',
)
