"""config.json of Hugging Face's CLIPs: what it may say, reading it and writing it."""

from collections.abc import Mapping
from typing import Any

from ovs_jax.convert.family import Options, Settings
from ovs_jax.convert.settings import (
  COMMON,
  COUNT,
  FREE,
  NAME,
  POSITIVE,
  Accepted,
  Table,
  check,
  free,
  only,
  pixels,
)
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.layers import ACTIVATIONS, NORM_EPSILON
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD

# What `transformers` takes for the keys that a config.json leaves out.
_BOTH = {'hidden_act': 'quick_gelu', 'layer_norm_eps': NORM_EPSILON}
_DEFAULTS = {
  'text': {**_BOTH, 'num_attention_heads': 8, 'eos_token_id': 49407},
  'vision': {**_BOTH, 'num_attention_heads': 12},
}
# What config.json may say of either tower; shapes tell the sizes.
_TOWER: Table = {
  **COMMON,
  **free('hidden_size intermediate_size projection_dim num_hidden_layers'),
  'num_attention_heads': COUNT,
  'hidden_act': NAME,  # looked up where it is read, as is eos_token_id
  'layer_norm_eps': POSITIVE,
}
_TOWERS: dict[str, Table] = {
  'text': {**_TOWER, **free('max_position_embeddings vocab_size')},
  'vision': {**_TOWER, **free('image_size patch_size'), 'num_channels': only(3)},
}
# How pictures are prepared: the shortest side, and the centre.
_PIXELS = pixels(
  CLIP_MEAN,
  CLIP_STD,
  crop_size=FREE,
  do_center_crop=only(True),
  default_to_square=only(False),
  resample=only(3),
  size=Accepted(
    'the shortest edge',
    lambda x: isinstance(x, int) or list(x or ()) == ['shortest_edge'],
  ),
)


def check_settings(
  settings: Settings,
  kind: str = 'clip',
  more: Table | None = None,
  pictures: Table = _PIXELS,
) -> None:
  """Refuses a config.json that says what is not understood.

  Args:
    settings: its contents; None says nothing.
    kind: the `model_type` of the whole.
    more: what it may say besides the two towers.
    pictures: what the preprocessor_config.json beside it may say.

  Raises:
    ValueError: which keys, and what they may be.
  """
  if settings is None:
    return
  top = {**COMMON, **free('projection_dim logit_scale_init_value'), **(more or {})}
  top['model_type'] = only(kind)
  sections: list[tuple[str, Any, Table]] = [('', settings, top)]
  for tower, table in _TOWERS.items():
    table = {**table, 'model_type': only(f'{kind}_{tower}_model')}
    for key in (f'{tower}_config', f'{tower}_config_dict'):
      top[key] = FREE
      if settings.get(key) is not None:
        sections.append((key, settings[key], table))
  check('config.json', sections, pictures)


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
      raise ValueError(
        'there is no config.json, which says the activation; give the folder as '
        '--input=, or --activation=quick_gelu or --activation=gelu'
      )
    return options.sizes
  text, vision = (_section(settings, tower) for tower in ('text', 'vision'))
  activation = options.activation or vision['hidden_act']
  if options.activation is None and text['hidden_act'] != vision['hidden_act']:
    raise ValueError(
      f'config.json has the activation {text["hidden_act"]!r} for texts and '
      f'{vision["hidden_act"]!r} for images; our CLIP has one for both'
    )
  lookup(ACTIVATIONS, activation, 'activation (hidden_act)')
  found = {
    'activation': activation,
    'vision_heads': vision['num_attention_heads'],
    'text_heads': text['num_attention_heads'],
    'vision_epsilon': float(vision['layer_norm_eps']),
    'text_epsilon': float(text['layer_norm_eps']),
    'end_token': text['eos_token_id'],
  }
  if not isinstance(found['end_token'], int) or found['end_token'] <= 0:
    raise ValueError(
      f'eos_token_id of config.json is {found["end_token"]!r}; one positive id is read'
    )
  return {**found, **options.sizes}


def _section(settings: Mapping[str, Any], tower: str) -> dict[str, Any]:
  """Returns one tower's settings; an older key for them replaces the newer whole."""
  given = settings.get(f'{tower}_config_dict')
  if given is None:
    given = settings.get(f'{tower}_config') or {}
  return {**_DEFAULTS[tower], **given}


def write_settings(model: Mapping[str, Any], kind: str = 'clip') -> dict[str, Any]:
  """Returns the contents of config.json for a model of this `model_type`."""
  c = ClipConfig(**model['clip'])

  def tower(name: str, **more: Any) -> dict[str, Any]:
    size = {
      field: getattr(c, f'{name}_{field}')
      for field in ('width', 'mlp', 'layers', 'heads', 'epsilon')
    }
    return {
      'model_type': f'{kind}_{name}_model',
      'hidden_act': c.activation,
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
