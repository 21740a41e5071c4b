"""SigLIP folders of Hugging Face; SigLIP 2's too, where pictures have one size."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import allowed, pictures
from ovs_jax.convert.clip import ClipFamily, shapes
from ovs_jax.convert.clip_sizes import resized, sized
from ovs_jax.convert.family import Conversion, Options, Settings
from ovs_jax.convert.hf_clip import BLOCK, CONSTANTS, activation_of, hidden_act
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import Source, Tensors, matching
from ovs_jax.convert.tokenizer_file import read_tokenizer, write_tokenizer
from ovs_jax.core.errors import UserError
from ovs_jax.models import image_kinds
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clip_config import TextTower
from ovs_jax.models.clip_presets import SIGLIP_PIXELS

_KERNEL = 'vision_model.embeddings.patch_embedding.weight'
_POSITIONS = 'vision_model.embeddings.position_embedding.weight'
_TEXT = 'text_model.embeddings'
_PROBE = 'vision_model.head.probe'
_SCALARS = ('logit_scale', 'logit_bias')  # vectors of one

_RULES = """
  logit_scale                                        logit_scale                    row
  logit_bias                                         logit_bias                     row
  text_model.embeddings.token_embedding.weight       text/token_embedding/embedding same
  text_model.embeddings.position_embedding.weight    text/positional_embedding      same
  text_model.final_layer_norm                        text/ln_final                  norm
  text_model.head                                    text/head                    linear
  vision_model.embeddings.patch_embedding            visual/conv1                   conv
  vision_model.embeddings.position_embedding.weight  visual/positional_embedding    same
  vision_model.post_layernorm                        visual/ln_post                 norm
  vision_model.head.probe                            visual/pool/probe            vector
  vision_model.head.attention                        visual/pool/attn          attention
  vision_model.head.layernorm                        visual/pool/ln                 norm
  vision_model.head.mlp.fc1                          visual/pool/c_fc             linear
  vision_model.head.mlp.fc2                          visual/pool/c_proj           linear
"""

# What `transformers` takes for the keys that a config.json leaves out.
_DEFAULTS = {
  'num_attention_heads': 12,
  'hidden_act': 'gelu_pytorch_tanh',
  'layer_norm_eps': 1e-6,
}
_TOWER: allowed.Table = {
  **allowed.COMMON,
  **allowed.free('hidden_size intermediate_size num_hidden_layers'),
  'num_attention_heads': allowed.COUNT,
  'hidden_act': allowed.NAME,  # looked up where it is read
  'layer_norm_eps': allowed.POSITIVE,
}
_TOWERS: dict[str, allowed.Table] = {
  'text': {
    **_TOWER,
    **allowed.free('max_position_embeddings vocab_size projection_size'),
    'model_type': allowed.only('siglip_text_model'),
  },
  'vision': {
    **_TOWER,
    **allowed.free('image_size patch_size'),
    'num_channels': allowed.only(3),
    'vision_use_head': allowed.only(True),
    'model_type': allowed.only('siglip_vision_model'),
  },
}
_TOP: allowed.Table = {
  **allowed.COMMON,
  **allowed.free('text_config vision_config'),
  # `siglip2` has pictures of any size (NaFlex), whose patches are embedded otherwise.
  'model_type': allowed.only('siglip'),
}


def rules() -> list[Rule]:
  """Returns the table."""
  text, vision = (f'{t}_model.encoder.layers.<layer>.' for t in ('text', 'vision'))
  return [
    *table(_RULES),
    *table(BLOCK, text, 'text/blocks/'),
    *table(BLOCK, vision, 'visual/blocks/'),
  ]


def infer_config(source: Source, settings: Settings, options: Options) -> ClipConfig:
  """Returns the sizes of a SigLIP: shapes first, then config.json.

  Raises:
    ValueError: there is no config.json, it is not such a model, or has something that
      ours has not.
  """
  text, vision = _sections(settings)
  activation = activation_of(options.activation or vision['hidden_act'])
  of_text = activation_of(options.activation or text['hidden_act'])
  heads = vision['num_attention_heads']
  return sized(
    source,
    kernel=_KERNEL,
    tables=(
      _POSITIONS,
      f'{_TEXT}.position_embedding.weight',
      f'{_TEXT}.token_embedding.weight',
    ),
    embed=('vision_model.post_layernorm.weight', 0),
    blocks={tower: f'{tower}_model.encoder.layers' for tower in ('vision', 'text')},
    hidden='mlp.fc1.bias',
    what='a SigLIP of Hugging Face',
    image_tower=image_kinds.siglip(heads),
    text_tower=TextTower(
      activation='' if of_text == activation else of_text,
      causal=False,
      pool='last',
      projection='bias',
      **read_tokenizer(settings, text.get('vocab_size', 32_000)),
    ),
    pixels=pictures.hugging_face(settings, SIGLIP_PIXELS),
    scores='sigmoid',
    **{
      'activation': activation,
      'vision_heads': heads,
      'text_heads': text['num_attention_heads'],
      'vision_epsilon': float(vision['layer_norm_eps']),
      'text_epsilon': float(text['layer_norm_eps']),
      **options.sizes,
      **({'activation': activation} if options.activation else {}),
    },
  )


def _sections(settings: Settings) -> tuple[dict[str, Any], ...]:
  """Returns what config.json says of texts and of images, checked."""
  says = 'the heads and the activation of a SigLIP'
  defaults = dict.fromkeys(_TOWERS, _DEFAULTS)
  return allowed.towers(settings, says, _TOP, _TOWERS, pictures.HUGGING_FACE, defaults)


def write_settings(config: ClipConfig) -> dict[str, Any]:
  """Returns the contents of config.json."""

  def tower(name: str, **more: Any) -> dict[str, Any]:
    one = config.vision if name == 'vision' else config.text
    return {
      'model_type': f'siglip_{name}_model',
      'hidden_act': hidden_act(one.activation),
      'hidden_size': one.width,
      'intermediate_size': one.mlp,
      'num_hidden_layers': one.layers,
      'num_attention_heads': one.heads,
      'layer_norm_eps': one.epsilon,
      **more,
    }

  return {
    'architectures': ['SiglipModel'],
    'model_type': 'siglip',
    'text_config': tower(
      'text',
      max_position_embeddings=config.context_length,
      vocab_size=config.vocab_size,
      projection_size=config.embed_dim,
      pad_token_id=config.text_tower.pad,
    ),
    'vision_config': tower(
      'vision', image_size=config.image_size, patch_size=config.patch, num_channels=3
    ),
  }


class _HfSiglip(ClipFamily):
  """Hugging Face's SiglipModel."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By the probe."""
    return _PROBE in {name.removeprefix('module.') for name in source}

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes what the shapes do not tell from config.json."""
    source = Tensors(source).rename(lambda name: name.removeprefix('module.'))
    config = options.resizing(infer_config(source, settings, options))
    constants = matching(source, CONSTANTS)
    held = resized(source.without(constants), config, _POSITIONS)
    ones = {name: held[name].reshape(1) for name in _SCALARS if name in held}
    held = Tensors(held, ones)
    params = apply(held, rules(), shapes(config), what='SigLIP of Hugging Face')
    model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
    return Conversion(model, params, held, tuple(constants))

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """The whole table."""
    config = self.holdable(model)
    image, text = config.image_tower, config.text_tower
    usual = image_kinds.siglip(config.vision_heads)
    kind = (text.causal, text.pool, text.projection, config.scores)
    if image != usual or kind != (False, 'last', 'bias', 'sigmoid'):
      raise UserError(
        'this CLIP is no SigLIP; use --export=hf_clip, or --export=open_clip'
      )
    return rules()

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Indices."""
    c = ClipConfig.from_dict(model['clip'])
    vision = name.startswith('vision')
    count = (c.image_size // c.patch) ** 2 if vision else c.context_length
    return np.arange(count, dtype=np.int64)[None]

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the model, of its pictures, and of its tokenizer."""
    config = ClipConfig.from_dict(model['clip'])
    return {
      'config.json': write_settings(config),
      allowed.PROCESSOR: pictures.to_hugging_face(
        config.pixels, config.image_size, processor='SiglipImageProcessor'
      ),
      **write_tokenizer(dataclasses.asdict(config.text_tower)),
    }


HF_SIGLIP = _HfSiglip(
  'hf_siglip',
  'vision_model.head.probe in a folder with config.json, which says heads and '
  'activation; SigLIP 2 has these names, too, where pictures have one size',
)
