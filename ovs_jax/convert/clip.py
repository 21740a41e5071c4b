"""CLIP checkpoints of OpenAI, open_clip and OVSeg, which name their tensors alike."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ovs_jax.convert import open_clip
from ovs_jax.convert.family import Conversion, Family, Options
from ovs_jax.convert.positions import resize_grid, resize_positions
from ovs_jax.convert.rules import Rule, apply, foreign_names, table
from ovs_jax.convert.tensors import (
  Source,
  Tensors,
  count,
  matching,
  shape_of,
  shapes_of,
)
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.layers import NORM_EPSILON

HEAD_SIZE = 64  # of OpenAI's and OVSeg's CLIPs: heads = width / 64
# The vision towers of open_clip's ViT-H-14, ViT-g-14 and ViT-bigG-14 have other heads.
WIDE_HEADS = {1280: 16, 1408: 16, 1664: 16}

# Where CLIP sits inside other checkpoints: a distributed run's, and OVSeg's.
PREFIXES = ('module.', 'clip_model.', 'clip_adapter.clip_model.')
_WHOLE_MODEL = 'clip_adapter.clip_model.'

# Entries of OpenAI's archives that hold no parameter.
CONSTANTS = (r'input_resolution', r'context_length', r'vocab_size')
_PROMPTS, _POSITIONS = 'visual.mask_embedding', 'visual.positional_embedding'


_RULES = """
  logit_scale                              logit_scale                    same
  <name:positional_embedding|text_projection>  text/<name>                same
  token_embedding.weight                   text/token_embedding/embedding same
  ln_final                                 text/ln_final                  norm
  visual.conv1                             visual/conv1                   filters
  visual.<name:class_embedding|positional_embedding|proj>  visual/<name>  same
  visual.<norm:ln_pre|ln_post>             visual/<norm>                  norm
"""
_BLOCK = """
  attn                     attn     attention
  <norm:ln_1|ln_2>         <norm>   norm
  mlp.<part:c_fc|c_proj>   <part>   linear
"""


def rules(config: ClipConfig, source: str = '', target: str = '') -> list[Rule]:
  """Returns the table for a CLIP with or without mask prompts."""
  prompts = f'{_PROMPTS} visual/mask_prompt same' if config.prompt_depth else ''
  blocks = 'transformer.resblocks.<layer>.'
  return [
    *table(_RULES + prompts, source, target),
    *table(_BLOCK, f'{source}{blocks}', f'{target}text/blocks/'),
    *table(_BLOCK, f'{source}visual.{blocks}', f'{target}visual/blocks/'),
  ]


def names(config: ClipConfig) -> list[str]:
  """Returns the names of the tensors that a CLIP of these sizes has."""
  return foreign_names(rules(config), shapes(config))


def strip_prefix(source: Source) -> Tensors:
  """Returns CLIP's tensors by their plain names.

  A prefix of a distributed run is cut off where all names have it; of a whole OVSeg
  model the part that is CLIP is taken.
  """
  found, changed = Tensors(source), True
  while changed:
    changed = False
    for prefix in PREFIXES:
      inside = found.inside(prefix)
      if inside and (prefix == _WHOLE_MODEL or len(inside) == len(found)):
        found, changed = inside, True
  # A depth of 0 leaves an empty tensor behind in OVSeg's files.
  empty = _PROMPTS in found and 0 in shape_of(found, _PROMPTS)
  return found.without([_PROMPTS]) if empty else found


def infer_config(source: Source) -> ClipConfig:
  """Returns the sizes of a CLIP from the shapes of its tensors.

  What shapes do not tell (heads, activation) is that of OpenAI's models.

  Raises:
    ValueError: it is not a CLIP with a vision transformer.
  """
  source = strip_prefix(source)
  needed = (
    'visual.conv1.weight',
    _POSITIONS,
    'visual.proj',
    'positional_embedding',
    'token_embedding.weight',
  )
  kernel, positions, projection, texts, tokens = shapes_of(
    source, needed, what='a CLIP checkpoint with a vision transformer'
  )
  if len(kernel) != 4:
    raise ValueError(
      'not a CLIP checkpoint with a vision transformer: its visual.conv1.weight has '
      f'the shape {kernel}'
    )
  width, text_width = kernel[0], tokens[1]
  return sized(
    source,
    (kernel, positions, texts, tokens),
    towers={'vision': 'visual.transformer.resblocks', 'text': 'transformer.resblocks'},
    hidden='mlp.c_fc.bias',
    embed_dim=projection[1],
    vision_heads=WIDE_HEADS.get(width, max(width // HEAD_SIZE, 1)),
    text_heads=max(text_width // HEAD_SIZE, 1),
    prompt_depth=shape_of(source, _PROMPTS)[0] if _PROMPTS in source else 0,
  )


def sized(
  source: Source,
  told: Sequence[tuple[int, ...]],
  *,
  towers: Mapping[str, str],
  hidden: str,
  **more: Any,
) -> ClipConfig:
  """Returns the sizes of a CLIP, in whatever layout.

  Args:
    source: tensors by name.
    told: the shapes of the patches' kernel, of the tables of positions of images and of
      texts, and of the tokens' embedding.
    towers: names in front of the index of a tower's blocks, by tower.
    hidden: name of a tensor as long as the hidden layer of a block's MLP.
    **more: fields of the configuration that shapes do not tell alike.
  """
  (width, *_, patch), (places, _), (context, _), (vocabulary, text_width) = told
  for tower, size in (('vision', width), ('text', text_width)):
    blocks = towers[tower]
    name = f'{blocks}.0.{hidden}'
    mlp = shape_of(source, name)[0] if name in source else 4 * size
    more[f'{tower}_width'] = size
    more[f'{tower}_layers'] = count(source, f'{blocks}.')
    more[f'{tower}_mlp'] = 0 if mlp == 4 * size else mlp
  return ClipConfig(
    image_size=math.isqrt(places - 1) * patch,
    patch=patch,
    context_length=context,
    vocab_size=vocabulary,
    dtype='float32',
    remat=False,
    unroll=1,
    **more,
  )


def shapes(config: ClipConfig) -> dict[str, Any]:
  """Returns the shapes of our parameters, without computing any."""
  return jax.eval_shape(lambda key: init_clip(config, key), jax.random.key(0))


def convert(
  source: Source, config: ClipConfig | None = None
) -> tuple[ClipConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of a foreign CLIP.

  Args:
    source: tensors by name, of a CLIP alone or of a whole OVSeg model.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a CLIP; lists everything that does not fit.
  """
  source = strip_prefix(source)
  config = config or infer_config(source)
  params = apply(
    source, rules(config), shapes(config), what='CLIP checkpoint', ignore=CONSTANTS
  )
  return config, params


def with_options(config: ClipConfig, options: Options) -> ClipConfig:
  """Returns the sizes with what the user wants otherwise.

  Raises:
    ValueError: the wishes do not fit the sizes.
  """
  fields = {field.name for field in dataclasses.fields(config)}
  wishes = {k: v for k, v in dataclasses.asdict(options).items() if v is not None}
  wishes = {k: v for k, v in wishes.items() if k in fields}
  return dataclasses.replace(config, **wishes)


def resized(
  source: Source, config: ClipConfig, positions: str, prompts: str | None = None
) -> Tensors:
  """Returns the tensors with tables of positions that fit `config.image_size`.

  Args:
    source: tensors by name.
    config: the wanted sizes.
    positions: name of the table of positions.
    prompts: name of the mask prompts. They belong to positions too; a single one for
      all positions is repeated, which is what it means.
  """
  grid = config.image_size // config.patch
  changed = {}
  if positions in source and shape_of(source, positions)[0] != 1 + grid * grid:
    changed[positions] = resize_positions(source[positions], grid)
  if prompts in source and shape_of(source, prompts)[1] != grid * grid:
    table = source[prompts]
    if table.shape[1] == 1:
      changed[prompts] = np.repeat(table, grid * grid, axis=1)
    else:
      changed[prompts] = resize_grid(table, grid)
  return Tensors(source, changed)


def _convert(
  source: Source,
  settings: Mapping[str, Any] | None,
  options: Options,
  *,
  activation: str,
) -> Conversion:
  plain = strip_prefix(source)
  config = dataclasses.replace(infer_config(plain), activation=activation)
  config = with_options(open_clip.with_settings(config, settings), options)
  constants = matching(plain, CONSTANTS)
  held = resized(plain.without(constants), config, _POSITIONS, _PROMPTS)
  config, params = convert(held, config)
  empty = [n for n in source if n.endswith(_PROMPTS) and 0 in shape_of(source, n)]
  if empty:
    constants.append(_PROMPTS)
  bare = [n.removeprefix('module.') for n in source if _WHOLE_MODEL not in n]
  whole = any(_WHOLE_MODEL in n for n in source)
  model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
  left_out = tuple(sorted({n.split('.')[0] for n in bare})) if whole else ()
  return Conversion(model, params, held, tuple(constants), left_out)


def layout_rules(
  model: Mapping[str, Any], layout: str, source: str = '', target: str = ''
) -> list[Rule]:
  """Returns the table of a layout; raises ValueError if it cannot hold the model."""
  config = ClipConfig(**model['clip'])
  if config.prompt_depth and layout != 'ovseg_clip':
    raise ValueError(
      f'this CLIP has mask prompts of depth {config.prompt_depth}, which the layout '
      f'{layout!r} cannot hold; use --export=ovseg_clip'
    )
  if config.activation != 'quick_gelu' and layout != 'open_clip':
    raise ValueError(
      f'this CLIP has the activation {config.activation!r}; whatever reads {layout!r} '
      'files computes quick_gelu. Use --export=open_clip or --export=hf_clip'
    )
  return rules(config, source, target)


def _constant(name: str, model: Mapping[str, Any]) -> np.ndarray:
  c = ClipConfig(**model['clip'])
  if name == _PROMPTS:
    patches = (c.image_size // c.patch) ** 2
    return np.zeros((0, patches, c.vision_width), np.float32)
  values = {
    'input_resolution': c.image_size,
    'context_length': c.context_length,
    'vocab_size': c.vocab_size,
  }
  return np.asarray(values[name], np.int64)


def notes(model: Mapping[str, Any], *, layout: str) -> list[str]:
  """Returns what this layout does not say of a model, where it is not the usual."""
  c = ClipConfig(**model['clip'])
  usual = {
    'vision_heads': max(c.vision_width // HEAD_SIZE, 1),
    'text_heads': max(c.text_width // HEAD_SIZE, 1),
    'vision_mlp': 0,
    'text_mlp': 0,
    'vision_epsilon': NORM_EPSILON,
    'text_epsilon': NORM_EPSILON,
    'end_token': 0,
  }
  odd = [f'{k} {getattr(c, k)}' for k, v in usual.items() if getattr(c, k) != v]
  if layout == 'open_clip':
    odd.insert(0, f'activation {c.activation}')
  return [f'the file does not say: {", ".join(odd)}'] if odd else []


def _recognise(
  source: Source, settings: Mapping[str, Any] | None, *, layout: str
) -> bool:
  """Whether the names are those of this layout.

  What was trained from OpenAI's weights without mask prompts has the names of
  open_clip, and is taken for it; the command says so.
  """
  if any(_WHOLE_MODEL in name for name in source):
    return False
  plain = strip_prefix(source)
  if not {'visual.conv1.weight', 'visual.proj', 'token_embedding.weight'} <= set(plain):
    return False
  prompts = any(name.endswith(_PROMPTS) for name in source)
  # OpenAI's own rule: matrices are half precision, norms are not.
  halves = [
    plain.entry(name).dtype == np.float16
    for name in ('visual.conv1.weight', 'visual.ln_pre.weight')
    if name in plain
  ]
  archive = 'input_resolution' in plain or halves == [True, False]
  archive = archive and not open_clip.describes(settings)
  if prompts:
    return layout == 'ovseg_clip'
  return layout == ('openai' if archive else 'open_clip')


def _family(layout: str, activation: str, clue: str) -> Family:
  return Family(
    clue=clue,
    model='clip',
    recognise=functools.partial(_recognise, layout=layout),
    convert=functools.partial(_convert, activation=activation),
    rules=functools.partial(layout_rules, layout=layout),
    shapes=lambda model: shapes(ClipConfig(**model['clip'])),
    constant=_constant,
    notes=functools.partial(notes, layout=layout),
  )


OPENAI = _family(
  'openai',
  'quick_gelu',
  'visual.conv1.weight and transformer.resblocks.*, with input_resolution beside them '
  'or matrices in float16 and norms in float32; quick-GELU',
)
OPEN_CLIP = _family(
  'open_clip',
  'gelu',
  "OpenAI's names without input_resolution; the activation of open_clip_config.json, "
  'else GELU unless --activation=quick_gelu',
)
OVSEG_CLIP = _family(
  'ovseg_clip',
  'quick_gelu',
  "OpenAI's names with visual.mask_embedding, or fine-tuned from OpenAI's weights, or "
  'the CLIP (clip_adapter.clip_model.*) of a whole OVSeg model; quick-GELU',
)
