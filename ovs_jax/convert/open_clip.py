"""open_clip_config.json, which lies beside the weights of open_clip on the hub."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovs_jax.models.clip import ClipConfig
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD

FILE = 'open_clip_config.json'


def describes(settings: Mapping[str, Any] | None) -> bool:
  """Whether these are the contents of an open_clip_config.json."""
  return bool(settings) and 'model_cfg' in settings


def with_settings(config: ClipConfig, settings: Mapping[str, Any] | None) -> ClipConfig:
  """Returns the sizes with the activation and the heads that open_clip names.

  Args:
    config: from the shapes.
    settings: the contents of open_clip_config.json; anything else changes nothing.

  Raises:
    ValueError: it describes a model or pixels that ours are not.
  """
  if not describes(settings):
    return config
  model = settings['model_cfg']
  vision, text = model.get('vision_cfg') or {}, model.get('text_cfg') or {}
  odd = [
    f'{tower} {key} {section[key]!r}'
    for tower, section, keys in (
      ('vision', vision, ('timm_model_name', 'attentional_pool', 'no_ln_pre')),
      ('text', text, ('hf_model_name', 'embed_cls', 'no_causal_mask')),
    )
    for key in keys
    if section.get(key)
  ]
  pixels = settings.get('preprocess_cfg') or {}
  for key, usual in (('mean', CLIP_MEAN), ('std', CLIP_STD)):
    given = pixels.get(key) or usual
    if any(abs(a - b) > 1e-4 for a, b in zip(given, usual, strict=True)):
      odd.append(f'pixels of {key} {list(given)}')
  if odd:
    raise ValueError(
      f"{FILE} describes a model that is not OpenAI's with other sizes, which is not "
      f'supported: {", ".join(odd)}'
    )
  head = vision.get('head_width', 64)  # open_clip's default
  return dataclasses.replace(
    config,
    activation='quick_gelu' if model.get('quick_gelu') else 'gelu',
    vision_heads=config.vision_width // head,
    text_heads=text.get('heads', config.text_heads),
  )
