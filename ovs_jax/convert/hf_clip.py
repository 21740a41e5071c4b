"""CLIP folders of Hugging Face: other names, and settings in a config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import allowed, pictures
from ovs_jax.convert.clip import ClipFamily, shapes
from ovs_jax.convert.clip_sizes import resized, sized
from ovs_jax.convert.family import Conversion, Options, Settings
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import Source, Tensors, matching
from ovs_jax.convert.tokenizer_file import read_tokenizer, write_tokenizer
from ovs_jax.convert.transforms import LINEAR
from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clip_config import TextTower
from ovs_jax.models.layers import ACTIVATIONS, NORM_EPSILON
from ovs_jax.ops.regions import CLIP_PIXELS

# Indices that older files hold beside the parameters.
CONSTANTS = (r'(text|vision)_model\.embeddings\.position_ids',)
POSITIONS = 'vision_model.embeddings.position_embedding.weight'

_LEGACY_END = 2  # an end token of 2 stands for the largest id, in old configurations

_RULES = """
  logit_scale                                        logit_scale                    same
  text_model.embeddings.token_embedding.weight       text/token_embedding/embedding same
  text_model.embeddings.position_embedding.weight    text/positional_embedding      same
  text_model.final_layer_norm                        text/ln_final                  norm
  vision_model.embeddings.patch_embedding            visual/conv1                filters
  vision_model.embeddings.class_embedding            visual/class_embedding         same
  vision_model.embeddings.position_embedding.weight  visual/positional_embedding    same
  vision_model.pre_layrnorm                          visual/ln_pre                  norm
  vision_model.post_layernorm                        visual/ln_post                 norm
"""
# Of either tower, and of CLIPSeg's decoder.
BLOCK = """
  self_attn            attn      split_attention
  layer_norm<i:1|2>    ln_<i>    norm
  mlp.fc1              c_fc      linear
  mlp.fc2              c_proj    linear
"""

# What `transformers` takes for the keys that a config.json leaves out.
_BOTH = {'hidden_act': 'quick_gelu', 'layer_norm_eps': NORM_EPSILON}
_DEFAULTS = {
  'text': {**_BOTH, 'num_attention_heads': 8, 'eos_token_id': 49407},
  'vision': {**_BOTH, 'num_attention_heads': 12},
}
# What config.json may say of either tower; shapes tell the sizes.
_TOWER: allowed.Table = {
  **allowed.COMMON,
  **allowed.free('hidden_size intermediate_size projection_dim num_hidden_layers'),
  'num_attention_heads': allowed.COUNT,
  'hidden_act': allowed.NAME,  # looked up where it is read, as is eos_token_id
  'layer_norm_eps': allowed.POSITIVE,
}
_TOWERS: dict[str, allowed.Table] = {
  'text': {**_TOWER, **allowed.free('max_position_embeddings vocab_size')},
  'vision': {
    **_TOWER,
    **allowed.free('image_size patch_size'),
    'num_channels': allowed.only(3),
  },
}
# Texts that MetaCLIP 2 reads end in an id that is looked for, whatever it is.
METACLIP_2 = 'metaclip_2'


def rules(source: str = '', target: str = '') -> list[Rule]:
  """Returns the table."""
  text, vision = (
    f'{source}{tower}_model.encoder.layers.<layer>.' for tower in ('text', 'vision')
  )
  return [
    *table(_RULES, source, target),
    Rule(f'{source}text_projection.weight', f'{target}text/text_projection', LINEAR),
    Rule(f'{source}visual_projection.weight', f'{target}visual/proj', LINEAR),
    *table(BLOCK, text, f'{target}text/blocks/'),
    *table(BLOCK, vision, f'{target}visual/blocks/'),
  ]


def infer_config(
  source: Source, settings: Settings, options: Options | None = None
) -> ClipConfig:
  """Returns the sizes of a CLIP: shapes first, then config.json.

  Args:
    source: tensors by name.
    settings: the contents of config.json; None takes heads of 64, and the activation
      of `options`.
    options: what the user wants otherwise.

  Raises:
    ValueError: it is not such a CLIP, or has something that we have not.
  """
  text = 'text_model.embeddings'
  config = sized(
    source,
    kernel='vision_model.embeddings.patch_embedding.weight',
    tables=(
      POSITIONS,
      f'{text}.position_embedding.weight',
      f'{text}.token_embedding.weight',
    ),
    embed=('visual_projection.weight', 0),
    blocks={tower: f'{tower}_model.encoder.layers' for tower in ('vision', 'text')},
    hidden='mlp.fc1.bias',
    what='a CLIP of Hugging Face',
    **read_settings(settings, options or Options()),
  )
  # The end token of CLIP's vocabulary is the largest id, with and without its name.
  old = settings is None or settings.get('model_type') != METACLIP_2
  if old and config.end_token in (_LEGACY_END, config.vocab_size - 1):
    config = dataclasses.replace(config, end_token=0)
  if config.end_token >= config.vocab_size:
    raise UserError(
      f'eos_token_id of config.json is not below {config.vocab_size}, the number of '
      'tokens; convert another checkpoint'
    )
  return config


def check_settings(
  settings: Settings,
  kind: str = 'clip',
  more: allowed.Table | None = None,
  known: allowed.Table = pictures.HUGGING_FACE,
) -> None:
  """Refuses a config.json that says what is not understood.

  Args:
    settings: its contents; None says nothing.
    kind: the `model_type` of the whole.
    more: what it may say besides the two towers.
    known: what the preprocessor_config.json beside it may say.

  Raises:
    ValueError: which keys, and what they may be.
  """
  if settings is None:
    return
  top = {
    **allowed.COMMON,
    **allowed.free('projection_dim logit_scale_init_value'),
    **(more or {}),
  }
  top['model_type'] = allowed.only(kind)
  sections: list[tuple[str, Any, allowed.Table]] = [('', settings, top)]
  for tower, own in _TOWERS.items():
    own = {**own, 'model_type': allowed.only(f'{kind}_{tower}_model')}
    for key in (f'{tower}_config', f'{tower}_config_dict'):
      top[key] = allowed.FREE
      if settings.get(key) is not None:
        sections.append((key, settings[key], own))
  allowed.check('config.json', sections, known)


def read_settings(settings: Settings, options: Options) -> dict[str, Any]:
  """Returns the fields of `ClipConfig` that shapes do not tell.

  Args:
    settings: the contents of config.json; None takes the activation of `options`.
    options: what the user wants otherwise.

  Raises:
    ValueError: settings are missing, or say what ours does not.
  """
  if settings is None:
    if options.activation is None:
      raise UserError(
        'there is no config.json, which says the activation; give the folder as '
        '--input=, or --activation=quick_gelu or --activation=gelu'
      )
    return options.sizes
  text, vision = (_section(settings, tower) for tower in ('text', 'vision'))
  activation = options.activation or vision['hidden_act']
  of_text = options.activation or text['hidden_act']
  tower = TextTower(
    activation='' if of_text == activation else activation_of(of_text),
    **_tokenizer(settings, text),
  )
  found = {
    'activation': activation_of(activation),
    'text_tower': tower,
    'pixels': pictures.hugging_face(settings, CLIP_PIXELS),
    'vision_heads': vision['num_attention_heads'],
    'text_heads': text['num_attention_heads'],
    'vision_epsilon': float(vision['layer_norm_eps']),
    'text_epsilon': float(text['layer_norm_eps']),
    'end_token': text['eos_token_id'],
  }
  if type(found['end_token']) is not int or found['end_token'] <= 0:
    raise UserError(
      f'eos_token_id of config.json is {found["end_token"]!r}; one positive id is read'
    )
  return {**found, **options.sizes}


def activation_of(name: str) -> str:
  """Returns our name of an activation of Hugging Face's."""
  name = {'gelu_pytorch_tanh': 'gelu_tanh'}.get(name, name)
  lookup(ACTIVATIONS, name, 'activation (hidden_act)')
  return name


def _tokenizer(settings: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what reads texts: CLIP's own, or MetaCLIP 2's tokenizer.json."""
  if settings.get('model_type') != METACLIP_2:
    return {}
  return read_tokenizer(settings, text.get('vocab_size', 49408))


def _section(settings: Mapping[str, Any], tower: str) -> dict[str, Any]:
  """Returns one tower's settings; an older key for them replaces the newer whole."""
  given = settings.get(f'{tower}_config_dict')
  if given is None:
    given = settings.get(f'{tower}_config') or {}
  return {**_DEFAULTS[tower], **given}


def hidden_act(activation: str) -> str:
  """Returns Hugging Face's name of one of our activations."""
  return {'gelu_tanh': 'gelu_pytorch_tanh'}.get(activation, activation)


def write_settings(model: Mapping[str, Any], kind: str = 'clip') -> dict[str, Any]:
  """Returns the contents of config.json for a model of this `model_type`."""
  c = ClipConfig.from_dict(model['clip'])

  def tower(name: str, **more: Any) -> dict[str, Any]:
    size = {
      field: getattr(c, f'{name}_{field}')
      for field in ('width', 'mlp', 'layers', 'heads', 'epsilon')
    }
    return {
      'model_type': f'{kind}_{name}_model',
      'hidden_act': hidden_act(getattr(c, name).activation),
      'projection_dim': c.embed_dim,
      'hidden_size': size['width'],
      'intermediate_size': size['mlp'] or 4 * size['width'],
      'num_hidden_layers': size['layers'],
      'num_attention_heads': size['heads'],
      'layer_norm_eps': size['epsilon'],
      **more,
    }

  return {
    'architectures': ['CLIPModel'],
    'model_type': kind,
    'projection_dim': c.embed_dim,
    'text_config': tower(
      'text',
      max_position_embeddings=c.context_length,
      vocab_size=c.vocab_size,
      bos_token_id=c.vocab_size - 2,
      eos_token_id=c.end_token or c.vocab_size - 1,
      pad_token_id=c.vocab_size - 1,
    ),
    'vision_config': tower(
      'vision', image_size=c.image_size, patch_size=c.patch, num_channels=3
    ),
  }


class _HfClip(ClipFamily):
  """Hugging Face's CLIPModel."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By its projections."""
    found = {name.removeprefix('module.') for name in source}
    return {'text_projection.weight', 'visual_projection.weight', POSITIONS} <= found

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes what the shapes do not tell from config.json."""
    kind = (settings or {}).get('model_type')
    check_settings(settings, METACLIP_2 if kind == METACLIP_2 else 'clip')
    source = Tensors(source).rename(lambda name: name.removeprefix('module.'))
    config = options.resizing(infer_config(source, settings, options))
    constants = matching(source, CONSTANTS)
    held = resized(source.without(constants), config, POSITIONS)
    params = apply(held, rules(), shapes(config), what='CLIP of Hugging Face')
    model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
    return Conversion(model, params, held, tuple(constants))

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """The whole table."""
    config, text = self.holdable(model), TextTower()
    if not config.is_plain or (config.text_tower.causal, config.text_tower.pool) != (
      text.causal,
      text.pool,
    ):
      raise UserError(
        "this CLIP has towers that Hugging Face's CLIP has not; use --export=hf_siglip "
        'or --export=open_clip'
      )
    return rules()

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Indices."""
    c = ClipConfig.from_dict(model['clip'])
    vision = name.startswith('vision')
    count = 1 + (c.image_size // c.patch) ** 2 if vision else c.context_length
    return np.arange(count, dtype=np.int64)[None]

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the model, of its pictures, and of its tokenizer."""
    config = ClipConfig.from_dict(model['clip'])
    kind = METACLIP_2 if config.text_tower.tokenizer else 'clip'
    return {
      'config.json': write_settings(model, kind),
      allowed.PROCESSOR: pictures.to_hugging_face(
        config.pixels, config.image_size, processor='CLIPImageProcessor'
      ),
      **write_tokenizer(dataclasses.asdict(config.text_tower)),
    }


HF_CLIP = _HfClip(
  'hf_clip',
  'text_model.* and vision_model.* in a folder with config.json, which says the '
  'activation',
)
