"""CLIPSeg: folders of Hugging Face, and the original files with a decoder alone."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ovs_jax.convert import clip, hf_clip
from ovs_jax.convert.clipseg_decoder import (
  HF,
  ORIGINAL,
  decoder_rules,
  infer_decoder,
)
from ovs_jax.convert.family import Conversion, Family, Options
from ovs_jax.convert.hf_clip_settings import check_settings, write_settings
from ovs_jax.convert.rules import Rule, apply
from ovs_jax.convert.settings import COUNT, FLAG, INDEX, Accepted, Table, free, only
from ovs_jax.convert.tensors import Source, Tensors, matching
from ovs_jax.inference.load import load
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clipseg import ClipSegConfig, check_decoder, init_clipseg
from ovs_jax.models.clipseg_decoder import strides_for
from ovs_jax.models.layers import NORM_EPSILON

IMAGE_SIZE = 352  # of everything that was released
CHUNK = 32

# The linear layer `reduce` of the original has values, but nothing reads it.
_DEAD = {'reduce.weight': lambda c: (c.decoder.reduce_dim, c.clip.vision_width)}
_DEAD |= {'reduce.bias': lambda c: (c.decoder.reduce_dim,)}
# What config.json may say besides CLIP's towers.
_SETTINGS: Table = {
  **free('reduce_dim decoder_intermediate_size decoder_attention_dropout'),
  'extract_layers': Accepted(
    'a list of whole numbers', lambda x: isinstance(x, list) and all(map(INDEX.fits, x))
  ),
  'conditional_layer': INDEX,
  'decoder_num_attention_heads': COUNT,
  # `transformers` writes its default and computes relu, as the original does.
  'decoder_hidden_act': only('quick_gelu', 'relu'),
  'use_complex_transposed_convolution': FLAG,
}
_ORIGINAL_CLIP = 'clip_model.'
_HF_CLIP = 'clip.'


def _shapes(config: ClipSegConfig) -> Any:
  return jax.eval_shape(lambda key: init_clipseg(config, key), jax.random.key(0))


def _model(config: ClipSegConfig) -> dict[str, Any]:
  return {'model': 'clipseg', 'clipseg': config.to_dict()}


def _config(model: Mapping[str, Any]) -> ClipSegConfig:
  return ClipSegConfig.from_dict(model['clipseg'])


def _convert_hf(
  source: Source, settings: Mapping[str, Any] | None, options: Options
) -> Conversion:
  check_settings(settings, 'clipseg', _SETTINGS)
  if settings is None and options.activation is None:
    options = dataclasses.replace(options, activation='quick_gelu')  # all of them
  source = Tensors(source)
  plain = source.inside(_HF_CLIP)
  sizes = hf_clip.infer_config(plain, settings, options)
  if sizes.vision_epsilon != NORM_EPSILON:
    raise ValueError(
      f'config.json has vision_config layer_norm_eps {sizes.vision_epsilon}, which its '
      f'decoder shares; only {NORM_EPSILON} is supported'
    )
  config = ClipSegConfig(
    sizes, infer_decoder(source, HF, settings), _image_size(sizes), CHUNK
  )
  constants = matching(source, [re.escape(_HF_CLIP) + p for p in hf_clip.CONSTANTS])
  held = source.without(constants)
  held = clip.resized(held, sizes, _HF_CLIP + hf_clip.POSITIONS)
  params = apply(
    held, _hf_rules(config), _shapes(config), what='CLIPSeg of Hugging Face'
  )
  return Conversion(_model(config), params, held, tuple(constants))


def _image_size(sizes: ClipConfig) -> int:
  """Returns the size that was trained with, or a multiple of the patch near it."""
  return max(IMAGE_SIZE // sizes.patch, 1) * sizes.patch


def _hf_rules(config: ClipSegConfig) -> list[Rule]:
  return [
    *hf_clip.rules(_HF_CLIP, 'clip/'),
    *decoder_rules(HF, head=config.decoder.head),
  ]


def _original_rules(config: ClipSegConfig) -> list[Rule]:
  return [
    *clip.rules(config.clip, _ORIGINAL_CLIP, 'clip/'),
    *decoder_rules(ORIGINAL, head=config.decoder.head),
  ]


def _exportable(model: Mapping[str, Any]) -> ClipSegConfig:
  """Returns the sizes of a model; raises ValueError for what neither layout can say."""
  config = _config(model)
  d = config.decoder
  wrong = {
    'order': d.order != 'deep_first',
    'film_position': d.film_position != 'before',
    'film_steps': len(d.film_steps) != 1,
    'keep_class': not d.keep_class,
  }
  found = [f'{name} {getattr(d, name)}' for name, odd in wrong.items() if odd]
  if config.clip.prompt_depth:
    found.append(f'mask prompts of depth {config.clip.prompt_depth}')
  if found:
    raise ValueError(f'CLIPSeg files cannot hold this decoder: {", ".join(found)}')
  return config


def _settings(model: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config.json of a model, and how pictures are prepared."""
  config = _config(model)
  d = config.decoder
  (plain,) = write_settings({'clip': dataclasses.asdict(config.clip)}).values()
  towers = {
    f'{tower}_config': {
      **plain[f'{tower}_config'],
      'model_type': f'clipseg_{tower}_model',
    }
    for tower in ('text', 'vision')
  }
  return {
    'config.json': {
      **plain,
      **towers,
      'architectures': ['CLIPSegForImageSegmentation'],
      'model_type': 'clipseg',
      'reduce_dim': d.reduce_dim,
      'extract_layers': list(d.extract),
      'decoder_num_attention_heads': d.heads,
      'decoder_intermediate_size': d.mlp,
      'conditional_layer': d.film_steps[0],
      'use_complex_transposed_convolution': d.head == 'complex',
    },
  }


def _hf_constant(name: str, model: Mapping[str, Any]) -> np.ndarray:
  inner = {'clip': model['clipseg']['clip']}
  return hf_clip.HF_CLIP.constant(name.removeprefix(_HF_CLIP), inner)


def _convert_original(
  source: Source, settings: Mapping[str, Any] | None, options: Options
) -> Conversion:
  del settings
  source = Tensors(source)
  own_clip = source.inside(_ORIGINAL_CLIP)
  whole = bool(len(own_clip))
  # A whole model holds its vision tower a second time, as `model.*`.
  doubles = [n for n in source if n.startswith('model.')] if whole else []
  dead = [n for n in source if n in _DEAD]
  held = source.without([*doubles, *dead])
  if whole:
    sizes = clip.with_options(clip.infer_config(own_clip), options)
    held = clip.resized(held, sizes, f'{_ORIGINAL_CLIP}visual.positional_embedding')
    table = clip.rules(sizes, _ORIGINAL_CLIP, 'clip/')
    own = None
  else:
    own, sizes = _given_clip(options)
    table = []
  decoder = infer_decoder(held, ORIGINAL)
  config = ClipSegConfig(sizes, decoder, _image_size(sizes), CHUNK)
  shapes = _shapes(config)
  if own is not None:
    _check_sizes(held, config)
    shapes = {'decoder': shapes['decoder']}
  table = [*table, *decoder_rules(ORIGINAL, head=decoder.head)]
  params = apply(held, table, shapes, what='CLIPSeg')
  if own is not None:
    params = {'clip': own, **params}
  left_out = ('model',) if doubles else ()
  return Conversion(_model(config), params, held, tuple(dead), left_out)


def _given_clip(options: Options) -> tuple[Any, ClipConfig]:
  if options.clip is None:
    raise ValueError(
      'this file holds the decoder of a CLIPSeg alone; add --clip=DIR with the CLIP '
      'ViT-B/16 that it was trained with, converted before from OpenAI'
    )
  found = load(options.clip, kinds=('clip',), what='CLIP checkpoint')
  return found.params, found.config


def _check_sizes(held: Tensors, config: ClipSegConfig) -> None:
  """Raises the one clear error if the decoder is of another CLIP."""
  kernels = {
    'reduce_0': held['reduces.0.weight'],
    'film_mul': held['film_mul.weight'],
  }
  check_decoder(
    config, {'decoder': {name: {'kernel': x.T} for name, x in kernels.items()}}
  )
  up = math.prod(config.decoder.strides)
  if config.decoder.head == 'simple' and up != config.clip.patch:
    raise ValueError(
      f'this decoder was made for patches of {up}, the CLIP given has patches of '
      f'{config.clip.patch}; strides would be '
      f'{strides_for(config.clip.patch, "simple")}'
    )


HF_CLIPSEG = Family(
  clue='clip.text_model.*, clip.vision_model.* and decoder.* in a folder with '
  'config.json',
  model='clipseg',
  recognise=lambda source, settings: (
    {'decoder.film_mul.weight', 'clip.visual_projection.weight'} <= set(source)
  ),
  convert=_convert_hf,
  rules=lambda model: _hf_rules(_exportable(model)),
  shapes=lambda model: _shapes(_config(model)),
  constant=_hf_constant,
  settings=_settings,
)
CLIPSEG = Family(
  clue='film_mul.*, reduces.* and trans_conv.*: the decoder alone (needs --clip=DIR) '
  'or with clip_model.*',
  model='clipseg',
  recognise=lambda source, settings: (
    {'film_mul.weight', 'reduces.0.weight'} <= set(source)
  ),
  convert=_convert_original,
  rules=lambda model: _original_rules(_exportable(model)),
  shapes=lambda model: {'decoder': _shapes(_config(model))['decoder']},
  constant=lambda name, model: np.zeros(_DEAD[name](_config(model)), np.float32),
  notes=lambda model: [
    'the decoder alone; the layer `reduce`, which nothing reads, is written as zeros '
    'where the file that it came from had it'
  ],
)
