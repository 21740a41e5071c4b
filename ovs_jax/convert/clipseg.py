"""CLIPSeg: folders of Hugging Face, and the original files with a decoder alone."""

import abc
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import allowed, clip, hf_clip, pictures
from ovs_jax.convert.backbones import IMAGENET
from ovs_jax.convert.family import Conversion, Family, Options, Settings
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import Source, Tensors, count, matching, shapes_of
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import drawn_shapes
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clipseg import (
  ClipSegConfig,
  check_decoder,
  init_clipseg,
)
from ovs_jax.models.clipseg_decoder import DecoderConfig, strides_for
from ovs_jax.models.layers import NORM_EPSILON
from ovs_jax.models.stored import load
from ovs_jax.ops.regions import Pixels

IMAGE_SIZE = 352  # of everything that was released
LARGEST = 4096  # that a file may ask for
PIXELS = Pixels(
  tuple(IMAGENET[0]), tuple(IMAGENET[1]), resize='squash', interpolation='bilinear'
)
CHUNK = 32

# The linear layer `reduce` of the original has values, but nothing reads it: its
# tensors and their axes.
_DEAD = {'reduce.weight': 2, 'reduce.bias': 1}
# What config.json may say besides CLIP's towers.
_SETTINGS: allowed.Table = {
  **allowed.free('reduce_dim decoder_intermediate_size decoder_attention_dropout'),
  'extract_layers': allowed.Accepted(
    'a list of whole numbers',
    lambda x: isinstance(x, list) and all(map(allowed.INDEX.fits, x)),
  ),
  'conditional_layer': allowed.INDEX,
  'decoder_num_attention_heads': allowed.COUNT,
  # `transformers` writes its default and computes relu, as the original does.
  'decoder_hidden_act': allowed.only('quick_gelu', 'relu'),
  'use_complex_transposed_convolution': allowed.FLAG,
}
# Pictures are squashed to a square.
_PIXELS = allowed.pixels(
  *IMAGENET,
  do_center_crop=allowed.only(None, False),
  default_to_square=allowed.only(None, True),
  resample=allowed.only(2),
  size=allowed.Accepted(
    f'a height and a width that are equal, up to {LARGEST}',
    lambda x: allowed.COUNT.fits(_side(x)) and _side(x) <= LARGEST,
  ),
)
_ORIGINAL_CLIP = 'clip_model.'
_HF_CLIP = 'clip.'

HEADS = 4  # of everything that was released; shapes do not tell
DROPOUT = 0.1  # PyTorch's default, which trained them


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one of the two calls the tensors of a decoder.

  Attributes:
    prefix: of all of them.
    blocks: of the transformer blocks.
    head: of the transposed convolutions.
  """

  prefix: str
  blocks: str
  head: str


HF = Layout('decoder.', 'layers', 'transposed_convolution')
ORIGINAL = Layout('', 'blocks', 'trans_conv')


_RULES = """
  <map:film_mul|film_add>   <map>           linear
  reduces.<step>            reduce_<step>   linear
"""
_ORIGINAL_BLOCK = """
  self_attn     attn     attention
  norm<i:1|2>   ln_<i>   norm
  linear1       c_fc     linear
  linear2       c_proj   linear
"""


def decoder_rules(layout: Layout, *, head: str) -> list[Rule]:
  """Returns the table of a decoder with this head; targets are below `decoder`."""
  parts = {'.0': 'conv conv', '.2': 'up upconv', '.4': 'out upconv'}
  parts = parts if head == 'complex' else {'': 'out upconv'}
  heads = ' '.join(f'{layout.head}{part} head/{to}' for part, to in parts.items())
  return [
    *table(_RULES + heads, layout.prefix, 'decoder/'),
    *table(
      hf_clip.BLOCK if layout is HF else _ORIGINAL_BLOCK,
      f'{layout.prefix}{layout.blocks}.<step>.',
      'decoder/block_<step>/',
    ),
  ]


def infer_decoder(
  source: Source, layout: Layout, settings: Mapping[str, Any] | None = None
) -> DecoderConfig:
  """Returns the sizes of a decoder: shapes first, then config.json.

  Raises:
    ValueError: tensors that tell them are missing.
  """
  settings = settings or {}
  hidden = 'mlp.fc1.bias' if layout is HF else 'linear1.bias'
  complex_head = f'{layout.prefix}{layout.head}.0.weight' in source
  kernels = ['.2.weight', '.4.weight'] if complex_head else ['.weight']
  kernels = [f'{layout.prefix}{layout.head}{kernel}' for kernel in kernels]
  needed = [
    f'{layout.prefix}reduces.0.weight',
    f'{layout.prefix}{layout.blocks}.0.{hidden}',
    *kernels,
  ]
  reduce, mlp, *heads = shapes_of(source, needed, what='a CLIPSeg')
  steps = count(source, f'{layout.prefix}reduces.')
  extract = tuple(settings.get('extract_layers', (3, 6, 9)))
  if len(extract) != steps:
    raise UserError(f'{steps} reductions for the activations of blocks {extract}')
  return DecoderConfig(
    reduce_dim=reduce[0],
    heads=settings.get('decoder_num_attention_heads', HEADS),
    mlp=mlp[0],
    extract=extract,
    order='deep_first',
    film_steps=(settings.get('conditional_layer', 0),),
    film_position='before',
    film_shared=True,
    keep_class=True,
    head='complex' if complex_head else 'simple',
    strides=tuple(shape[-1] for shape in heads),
    dropout=DROPOUT,
  )


class _ClipSeg(Family):
  """What both layouts have in common."""

  model = 'clipseg'

  @abc.abstractmethod
  def _table(self, config: ClipSegConfig) -> list[Rule]:
    """Returns the table of a layout."""

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """The table of CLIP and decoder, where files can say what the decoder does."""
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
      raise UserError(f'CLIPSeg files cannot hold this decoder: {", ".join(found)}')
    return self._table(config)


class _HfClipSeg(_ClipSeg):
  """Hugging Face's CLIPSegForImageSegmentation."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By names of both parts."""
    needed = {'decoder.film_mul.weight', 'clip.visual_projection.weight'}
    return needed <= set(source)

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes what the shapes do not tell from config.json."""
    hf_clip.check_settings(settings, 'clipseg', _SETTINGS, _PIXELS)
    if settings is None and options.activation is None:
      options = dataclasses.replace(options, activation='quick_gelu')  # all of them
    source = Tensors(source)
    # How pictures are prepared is CLIPSeg's, not that of its CLIP.
    towers = settings and {k: x for k, x in settings.items() if k != allowed.PROCESSOR}
    found = hf_clip.infer_config(source.inside(_HF_CLIP), towers, options)
    sizes = options.resizing(found)
    if sizes.vision_epsilon != NORM_EPSILON:
      raise UserError(
        f'config.json has vision_config layer_norm_eps {sizes.vision_epsilon}, which '
        f'its decoder shares; only {NORM_EPSILON} is supported'
      )
    given = ((settings or {}).get(allowed.PROCESSOR) or {}).get('size', IMAGE_SIZE)
    config = _whole(sizes, infer_decoder(source, HF, settings), _side(given))
    constants = matching(source, [re.escape(_HF_CLIP) + p for p in hf_clip.CONSTANTS])
    held = source.without(constants)
    held = clip.resized(held, sizes, _HF_CLIP + hf_clip.POSITIONS)
    what = 'CLIPSeg of Hugging Face'
    params = apply(
      held, self._table(config), drawn_shapes(init_clipseg, config), what=what
    )
    return Conversion(_model(config), params, held, tuple(constants))

  def _table(self, config: ClipSegConfig) -> list[Rule]:
    decoder = decoder_rules(HF, head=config.decoder.head)
    return [*hf_clip.rules(_HF_CLIP, 'clip/'), *decoder]

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of CLIP and decoder."""
    return drawn_shapes(init_clipseg, _config(model))

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Those of CLIP."""
    return hf_clip.HF_CLIP.constant(name.removeprefix(_HF_CLIP), model['clipseg'])

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model, and how large its pictures are."""
    config = _config(model)
    d = config.decoder
    plain = hf_clip.write_settings({'clip': dataclasses.asdict(config.clip)}, 'clipseg')
    more = {
      'architectures': ['CLIPSegForImageSegmentation'],
      'reduce_dim': d.reduce_dim,
      'extract_layers': list(d.extract),
      'decoder_num_attention_heads': d.heads,
      'decoder_intermediate_size': d.mlp,
      'conditional_layer': d.film_steps[0],
      'use_complex_transposed_convolution': d.head == 'complex',
    }
    seen = pictures.to_hugging_face(
      PIXELS, config.image_size, processor='ViTImageProcessor'
    )
    return {'config.json': {**plain, **more}, allowed.PROCESSOR: seen}


class _OriginalClipSeg(_ClipSeg):
  """The decoder alone, or in a whole model."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By names of the decoder."""
    return {'film_mul.weight', 'reduces.0.weight'} <= set(source)

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes the CLIP of the file, or else the one at `options.clip`."""
    source = Tensors(source)
    inner = source.inside(_ORIGINAL_CLIP)
    # A whole model holds its vision tower a second time, as `model.*`.
    doubles = [n for n in source if n.startswith('model.')] if inner else []
    dead = [n for n in source if n in _DEAD]
    held = source.without([*doubles, *dead])
    decoder = infer_decoder(held, ORIGINAL)
    lines = decoder_rules(ORIGINAL, head=decoder.head)
    if inner:
      found = dataclasses.replace(clip.infer_config(inner), **options.sizes)
      sizes = options.resizing(found)
      held = clip.resized(held, sizes, f'{_ORIGINAL_CLIP}visual.positional_embedding')
      lines += clip.rules(sizes, _ORIGINAL_CLIP, 'clip/')
      config, given = _whole(sizes, decoder), {}
    else:
      sizes, given = _given_clip(options)
      config = _whole(sizes, decoder)
      _check_sizes(held, config)
    shapes = {
      k: v for k, v in drawn_shapes(init_clipseg, config).items() if k not in given
    }
    params = {**given, **apply(held, lines, shapes, what='CLIPSeg')}
    left_out = ('model',) if doubles else ()
    return Conversion(_model(config), params, held, tuple(dead), left_out)

  def _table(self, config: ClipSegConfig) -> list[Rule]:
    decoder = decoder_rules(ORIGINAL, head=config.decoder.head)
    return [*clip.rules(config.clip, _ORIGINAL_CLIP, 'clip/'), *decoder]

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the decoder alone."""
    return {'decoder': drawn_shapes(init_clipseg, _config(model))['decoder']}

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Zeros for the layer that nothing reads."""
    c = _config(model)
    shape = (c.decoder.reduce_dim, c.clip.vision_width)
    return np.zeros(shape[: _DEAD[name]], np.float32)

  def notes(self, model: Mapping[str, Any]) -> list[str]:
    """What is not in the file."""
    return [
      'the decoder alone; the layer `reduce`, which nothing reads, is written as zeros '
      'where the file that it came from had it'
    ]


def _model(config: ClipSegConfig) -> dict[str, Any]:
  return {'model': 'clipseg', 'clipseg': config.to_dict()}


def _config(model: Mapping[str, Any]) -> ClipSegConfig:
  return ClipSegConfig.from_dict(model['clipseg'])


def _side(size: Any) -> Any:
  """Returns the side of the square that a preprocessor_config.json asks for."""
  if isinstance(size, Mapping) and sorted(size) == ['height', 'width']:
    return size['height'] if size['height'] == size['width'] else None
  return size


def _whole(
  sizes: ClipConfig, decoder: DecoderConfig, side: int = IMAGE_SIZE
) -> ClipSegConfig:
  """Returns a CLIPSeg for pictures as in training, or a multiple of the patch near."""
  image_size = max(side // sizes.patch, 1) * sizes.patch
  return ClipSegConfig(decoder, image_size, CHUNK, sizes)


def _given_clip(options: Options) -> tuple[ClipConfig, dict[str, Any]]:
  if options.clip is None:
    raise UserError(
      'this file holds the decoder of a CLIPSeg alone; add --clip=DIR with the CLIP '
      'ViT-B/16 that it was trained with, converted before from OpenAI'
    )
  found = load(options.clip, kinds=('clip',), what='CLIP checkpoint')
  return found.config, {'clip': found.params}


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
    raise UserError(
      f'this decoder was made for patches of {up}, the CLIP given has patches of '
      f'{config.clip.patch}; strides would be '
      f'{strides_for(config.clip.patch, "simple")}'
    )


HF_CLIPSEG = _HfClipSeg(
  'hf_clipseg',
  'clip.text_model.*, clip.vision_model.* and decoder.* in a folder with config.json',
)
CLIPSEG = _OriginalClipSeg(
  'clipseg',
  'film_mul.*, reduces.* and trans_conv.*: the decoder alone (needs --clip=DIR) or '
  'with clip_model.*',
)
