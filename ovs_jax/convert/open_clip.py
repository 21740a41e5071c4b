"""open_clip_config.json, which lies beside the weights of open_clip on the hub."""

from collections.abc import Mapping
from typing import Any

from ovs_jax.convert import allowed, pictures, timm_trunk
from ovs_jax.convert.tokenizer_file import read_tokenizer
from ovs_jax.core.errors import UserError
from ovs_jax.models.clip_config import ImageTower, TextTower
from ovs_jax.models.layers import NORM_EPSILON

FILE = 'open_clip_config.json'

_CLEANING = {
  'canonicalize': 'canonical',
  'lower': 'clip',
  'whitespace': 'whitespace',
}
_TOKENIZER = allowed.Accepted(
  'clean and strip_sep_token as open_clip has them',
  lambda x: (
    x is None
    or (
      isinstance(x, Mapping)
      and set(x) <= {'clean', 'strip_sep_token'}
      and x.get('clean', 'whitespace') in _CLEANING
      and isinstance(x.get('strip_sep_token', False), bool)
    )
  ),
)
_EPSILON = allowed.Accepted(
  'eps, a positive number',
  lambda x: not x or (list(x) == ['eps'] and allowed.POSITIVE.fits(x['eps'])),
)
# Of both towers: norms, activations and blocks as ours, and what only training needs.
_TOWER = {
  **allowed.free('width layers mlp_ratio output_tokens'),  # shapes tell the sizes
  'ls_init_value': allowed.only(None),
  'act_kwargs': allowed.only(None, {}, {'approximate': 'tanh'}),
  'norm_kwargs': _EPSILON,
  'block_type': allowed.only(None, 'default'),
  **allowed.fixed('qk_norm scaled_cosine_attn', False),
  **allowed.fixed('scale_heads scale_attn_inner scale_attn scale_fc', False),
}
_VISION = {
  **_TOWER,
  **allowed.free('patch_size image_size patch_dropout'),
  # Of towers and poolings that the keys below exclude.
  **allowed.free("""
    timm_model_pretrained timm_drop timm_drop_path
    attn_pooler_queries attn_pooler_heads n_queries
  """),
  'head_width': allowed.COUNT,
  # Looked at together.
  **allowed.free('timm_model_name timm_pool timm_proj'),
  'timm_proj_bias': allowed.only(False, None),
  **allowed.fixed('attentional_pool global_average_pool', False),
  'input_patchnorm': allowed.only(False),
  'no_ln_pre': allowed.FLAG,
  'pos_embed_type': allowed.only('learnable'),
  'pool_type': allowed.only('tok'),
  'final_ln_after_pool': allowed.FLAG,
}
# The mean of the patches is ours only where the last norm comes after it.
_MEAN = {**_VISION, 'pool_type': allowed.only('tok', 'avg')}
_TEXT = {
  **_TOWER,
  **allowed.free("""
    context_length vocab_size correct_cls_mask hf_model_pretrained hf_proj_type
    hf_pooler_type
  """),
  'heads': allowed.COUNT,
  'hf_model_name': allowed.only(None, ''),
  'hf_tokenizer_name': allowed.Accepted(
    'a name or nothing', lambda x: x is None or isinstance(x, str)
  ),
  'eos_id': allowed.INDEX,
  'tokenizer_mode': allowed.only(None),
  'tokenizer_kwargs': _TOKENIZER,
  **allowed.fixed('embed_cls use_pad_mask final_ln_after_pool', False),
  **dict.fromkeys(('no_causal_mask', 'proj_bias'), allowed.FLAG),
  'pad_id': allowed.INDEX,
  'pool_type': allowed.only('argmax', 'last', 'eos'),
  'proj_type': allowed.only('linear', 'none'),
}
_MODEL = {
  **allowed.free('embed_dim custom_text init_logit_scale cast_dtype output_dict'),
  **allowed.free('vision_cfg text_cfg'),
  'quick_gelu': allowed.FLAG,
  'init_logit_bias': allowed.Accepted(
    'a number or nothing',
    lambda x: x is None or (type(x) in (int, float) and abs(x) < 1e30),
  ),
  'nonscalar_logit_scale': allowed.only(False),
}


def describes(settings: Mapping[str, Any] | None) -> bool:
  """Whether these are the contents of an open_clip_config.json."""
  return bool(settings) and 'model_cfg' in settings


def told(settings: Mapping[str, Any] | None) -> dict[str, Any]:
  """Returns the fields of `ClipConfig` that open_clip names, but for heads by widths.

  Args:
    settings: the contents of open_clip_config.json; of anything else there are none.

  Raises:
    ValueError: it describes a model or pixels that ours are not, or is not understood.
  """
  if not describes(settings):
    return {}
  assert settings
  _check(settings)
  model = settings['model_cfg']
  vision, text = (model.get(key) or {} for key in ('vision_cfg', 'text_cfg'))
  plain = 'quick_gelu' if model.get('quick_gelu') else 'gelu'
  found = {
    **_image(vision, _activation(vision, plain)),
    'text_epsilon': (text.get('norm_kwargs') or {}).get('eps', NORM_EPSILON),
    'pixels': pictures.open_clip(settings.get('preprocess_cfg') or {}),
    'scores': 'softmax' if model.get('init_logit_bias') is None else 'sigmoid',
  }
  if 'heads' in text:
    found['text_heads'] = text['heads']
  if text.get('pool_type') == 'eos':
    found['end_token'] = text.get('eos_id', 2)  # open_clip's default
  own = _activation(text, plain)
  projection = 'bias' if text.get('proj_bias') else 'matrix'
  found['text_tower'] = TextTower(
    activation='' if own == found['activation'] else own,
    causal=not text.get('no_causal_mask', False),
    pool='last' if text.get('pool_type') == 'last' else 'end',
    projection='none' if text.get('proj_type') == 'none' else projection,
    **_tokenizer(settings, text),
  )
  return found


def image_size(settings: Mapping[str, Any] | None) -> Any:
  """Returns the side of pictures in pixels as the file says it."""
  vision = ((settings or {}).get('model_cfg') or {}).get('vision_cfg') or {}
  return vision.get('image_size', 224)  # open_clip's default


def vision_heads(settings: Mapping[str, Any], width: int) -> int:
  """Returns the heads of open_clip's own image tower."""
  vision = settings['model_cfg'].get('vision_cfg') or {}
  return width // vision.get('head_width', 64)  # open_clip's default


def _check(settings: Mapping[str, Any]) -> None:
  model = settings['model_cfg']
  known = allowed.free('model_cfg preprocess_cfg')
  known |= dict.fromkeys(allowed.TOKENIZER, allowed.FREE)
  sections: list[tuple[str, Any, allowed.Table]] = [
    ('', settings, known),
    ('', model, _MODEL),
  ]
  parts = model if isinstance(model, Mapping) else {}
  vision, text = (parts.get(key) or {} for key in ('vision_cfg', 'text_cfg'))
  after = isinstance(vision, Mapping) and vision.get('final_ln_after_pool')
  pixels = settings.get('preprocess_cfg') or {}
  sections += [
    ('vision', vision, _MEAN if after else _VISION),
    ('text', text, _TEXT),
    ('pixels of', pixels, pictures.OPEN_CLIP),
  ]
  allowed.check(FILE, sections)


def _activation(tower: Mapping[str, Any], plain: str) -> str:
  if not tower.get('act_kwargs'):
    return plain
  if plain == 'quick_gelu':
    raise UserError(
      f'{FILE} asks for quick_gelu and for act_kwargs {tower["act_kwargs"]!r}, which '
      'belong to GELU; take one of them out'
    )
  return 'gelu_tanh'


def _image(vision: Mapping[str, Any], activation: str) -> dict[str, Any]:
  """Returns what the image tower is, with its activation and its epsilon."""
  if name := vision.get('timm_model_name'):
    trunk = timm_trunk.by_name(
      name,
      # What open_clip takes for the keys that are left out.
      pool=vision.get('timm_pool', 'avg'),
      projection=vision.get('timm_proj', 'linear'),
    )
    return {
      'activation': trunk.activation,
      'vision_heads': trunk.heads,
      'vision_epsilon': trunk.epsilon,
      'image_tower': trunk.tower,
    }
  mean = vision.get('pool_type') == 'avg'
  return {
    'activation': activation,
    'vision_epsilon': (vision.get('norm_kwargs') or {}).get('eps', NORM_EPSILON),
    'image_tower': ImageTower(
      pre_norm=not vision.get('no_ln_pre', False), pool='mean' if mean else 'class'
    ),
  }


def _tokenizer(settings: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what reads texts: CLIP's own, or what a name of the hub stands for."""
  if not text.get('hf_tokenizer_name'):
    return {}
  options = text.get('tokenizer_kwargs') or {}
  return read_tokenizer(
    settings,
    text.get('vocab_size', 49408),  # open_clip's default
    cleaning=_CLEANING[options.get('clean', 'whitespace')],
    strip_end=options.get('strip_sep_token', False),
  )
