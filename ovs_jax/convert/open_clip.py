"""open_clip_config.json, which lies beside the weights of open_clip on the hub."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert.settings import COUNT, FLAG, FREE, check, free, near, only
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.layers import NORM_EPSILON
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD

FILE = 'open_clip_config.json'

# Of both towers: norms, activations and blocks as ours, and what only training needs.
_TOWER = {
  **free('width layers mlp_ratio output_tokens'),  # shapes tell the sizes
  'ls_init_value': only(None),
  'final_ln_after_pool': only(False),
  'act_kwargs': only(None, {}),
  'norm_kwargs': only(None, {}, {'eps': NORM_EPSILON}),
  'block_type': only(None, 'default'),
  'qk_norm': only(False),
  'scaled_cosine_attn': only(False),
  'scale_heads': only(False),
  'scale_attn_inner': only(False),
  'scale_attn': only(False),
  'scale_fc': only(False),
}
_VISION = {
  **_TOWER,
  **free('patch_size image_size patch_dropout'),
  # Of towers and poolings that the keys below exclude.
  **free('timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop'),
  **free('timm_drop_path attn_pooler_queries attn_pooler_heads n_queries'),
  'head_width': COUNT,
  'timm_model_name': only(None, ''),
  'attentional_pool': only(False),
  'global_average_pool': only(False),
  'input_patchnorm': only(False),
  'no_ln_pre': only(False),
  'pos_embed_type': only('learnable'),
  'pool_type': only('tok'),
}
_TEXT = {
  **_TOWER,
  **free('context_length vocab_size'),
  **free('eos_id correct_cls_mask hf_model_pretrained hf_proj_type hf_pooler_type'),
  'heads': COUNT,
  'hf_model_name': only(None, ''),
  'hf_tokenizer_name': only(None, ''),
  'tokenizer_mode': only(None),
  'tokenizer_kwargs': only(None, {}),
  'embed_cls': only(False),
  'pad_id': only(0),
  'use_pad_mask': only(False),
  'no_causal_mask': only(False),
  'pool_type': only('argmax'),
  'proj_type': only('linear'),
  'proj_bias': only(False),
}
_MODEL = {
  **free('embed_dim custom_text init_logit_scale cast_dtype output_dict'),
  'vision_cfg': FREE,
  'text_cfg': FREE,
  'quick_gelu': FLAG,
  'init_logit_bias': only(None),
  'nonscalar_logit_scale': only(False),
}


_PIXELS = {
  **free('size fill_color'),  # colours fill in the modes of resizing that we have not
  'mode': only('RGB', None),
  'mean': near(CLIP_MEAN),
  'std': near(CLIP_STD),
  'interpolation': only('bicubic', None),
  'resize_mode': only('shortest', None),
}


def describes(settings: Mapping[str, Any] | None) -> bool:
  """Whether these are the contents of an open_clip_config.json."""
  return bool(settings) and 'model_cfg' in settings


def with_settings(config: ClipConfig, settings: Mapping[str, Any] | None) -> ClipConfig:
  """Returns the sizes with the activation and the heads that open_clip names.

  Args:
    config: from the shapes.
    settings: the contents of open_clip_config.json; anything else changes nothing.

  Raises:
    ValueError: it describes a model or pixels that ours are not, or is not understood.
  """
  if not describes(settings):
    return config
  model = settings['model_cfg']
  sections = [('', settings, free('model_cfg preprocess_cfg')), ('', model, _MODEL)]
  parts = model if isinstance(model, Mapping) else {}
  vision, text = (parts.get(key) or {} for key in ('vision_cfg', 'text_cfg'))
  pixels = settings.get('preprocess_cfg') or {}
  sections += [('vision', vision, _VISION), ('text', text, _TEXT)]
  check(FILE, [*sections, ('pixels of', pixels, _PIXELS)])
  head = vision.get('head_width', 64)  # open_clip's default
  return dataclasses.replace(
    config,
    activation='quick_gelu' if model.get('quick_gelu') else 'gelu',
    vision_heads=config.vision_width // head,
    text_heads=text.get('heads', config.text_heads),
  )
