"""open_clip_config.json, which lies beside the weights of open_clip on the hub."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert import allowed
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.layers import NORM_EPSILON
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD

FILE = 'open_clip_config.json'

# Of both towers: norms, activations and blocks as ours, and what only training needs.
_TOWER = {
  **allowed.free('width layers mlp_ratio output_tokens'),  # shapes tell the sizes
  'ls_init_value': allowed.only(None),
  'act_kwargs': allowed.only(None, {}),
  'norm_kwargs': allowed.only(None, {}, {'eps': NORM_EPSILON}),
  'block_type': allowed.only(None, 'default'),
  **allowed.fixed('final_ln_after_pool qk_norm scaled_cosine_attn', False),
  **allowed.fixed('scale_heads scale_attn_inner scale_attn scale_fc', False),
}
_VISION = {
  **_TOWER,
  **allowed.free('patch_size image_size patch_dropout'),
  # Of towers and poolings that the keys below exclude.
  **allowed.free("""
    timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path
    attn_pooler_queries attn_pooler_heads n_queries
  """),
  'head_width': allowed.COUNT,
  'timm_model_name': allowed.only(None, ''),
  **allowed.fixed('attentional_pool global_average_pool', False),
  **allowed.fixed('input_patchnorm no_ln_pre', False),
  'pos_embed_type': allowed.only('learnable'),
  'pool_type': allowed.only('tok'),
}
_TEXT = {
  **_TOWER,
  **allowed.free("""
    context_length vocab_size eos_id correct_cls_mask hf_model_pretrained hf_proj_type
    hf_pooler_type
  """),
  'heads': allowed.COUNT,
  **allowed.fixed('hf_model_name hf_tokenizer_name', None, ''),
  'tokenizer_mode': allowed.only(None),
  'tokenizer_kwargs': allowed.only(None, {}),
  **allowed.fixed('embed_cls use_pad_mask no_causal_mask proj_bias', False),
  'pad_id': allowed.only(0),
  'pool_type': allowed.only('argmax'),
  'proj_type': allowed.only('linear'),
}
_MODEL = {
  **allowed.free('embed_dim custom_text init_logit_scale cast_dtype output_dict'),
  **allowed.free('vision_cfg text_cfg'),
  'quick_gelu': allowed.FLAG,
  'init_logit_bias': allowed.only(None),
  'nonscalar_logit_scale': allowed.only(False),
}


_PIXELS = {
  **allowed.free(
    'size fill_color'
  ),  # colours fill in the modes of resizing that we have not
  'mode': allowed.only('RGB', None),
  'mean': allowed.near(CLIP_MEAN),
  'std': allowed.near(CLIP_STD),
  'interpolation': allowed.only('bicubic', None),
  'resize_mode': allowed.only('shortest', None),
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
  sections = [
    ('', settings, allowed.free('model_cfg preprocess_cfg')),
    ('', model, _MODEL),
  ]
  parts = model if isinstance(model, Mapping) else {}
  vision, text = (parts.get(key) or {} for key in ('vision_cfg', 'text_cfg'))
  pixels = settings.get('preprocess_cfg') or {}
  sections += [('vision', vision, _VISION), ('text', text, _TEXT)]
  allowed.check(FILE, [*sections, ('pixels of', pixels, _PIXELS)])
  head = vision.get('head_width', 64)  # open_clip's default
  return dataclasses.replace(
    config,
    activation='quick_gelu' if model.get('quick_gelu') else 'gelu',
    vision_heads=config.vision_width // head,
    text_heads=text.get('heads', config.text_heads),
  )
