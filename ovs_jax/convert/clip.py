"""CLIP checkpoints of OpenAI, open_clip and OVSeg, which name their tensors alike."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.convert import open_clip
from ovs_jax.convert.family import Conversion, Family, Options, Settings
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import (
  Source,
  Tensors,
  count,
  matching,
  shape_of,
  shapes_of,
)
from ovs_jax.core.errors import UserError
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.layers import NORM_EPSILON
from ovs_jax.ops.resize import resize_grid, resize_positions

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
  config = sized(
    source,
    kernel='visual.conv1.weight',
    tables=(_POSITIONS, 'positional_embedding', 'token_embedding.weight'),
    embed=('visual.proj', 1),
    blocks={'vision': 'visual.transformer.resblocks', 'text': 'transformer.resblocks'},
    hidden='mlp.c_fc.bias',
    what='a CLIP checkpoint with a vision transformer',
  )
  return dataclasses.replace(
    config,
    vision_heads=WIDE_HEADS.get(config.vision_width, config.vision_heads),
    prompt_depth=shape_of(source, _PROMPTS)[0] if _PROMPTS in source else 0,
  )


def sized(
  source: Source,
  *,
  kernel: str,
  tables: tuple[str, str, str],
  embed: tuple[str, int],
  blocks: Mapping[str, str],
  hidden: str,
  what: str,
  **told: Any,
) -> ClipConfig:
  """Returns the sizes of a CLIP of some layout, from the shapes of its tensors.

  Args:
    source: tensors by name.
    kernel: name of the patches' kernel.
    tables: of the tables of positions of images and of texts, and of tokens.
    embed: of the projection of images, and its axis of the joint space.
    blocks: of a tower's blocks, by tower.
    hidden: of a tensor in a block, as long as the hidden layer of its MLP.
    what: it should be, for errors.
    **told: fields of the configuration that are known. What shapes do not tell is
      else that of OpenAI's models.
  """
  projection, axis = embed
  found = shapes_of(source, [kernel, projection, *tables], what=what)
  patches, joint, (places, *_), (context, _), (vocabulary, text_width) = found
  if len(patches) != 4:
    raise UserError(f'not {what}: its {kernel} has the shape {patches}')
  width, _, _, patch = patches
  sizes = {
    'image_size': math.isqrt(places - 1) * patch,
    'patch': patch,
    'embed_dim': joint[axis],
    'context_length': context,
    'vocab_size': vocabulary,
    'prompt_depth': 0,
    'dtype': 'float32',
    'remat': False,
    'unroll': 1,
  }
  for tower, size in (('vision', width), ('text', text_width)):
    first = f'{blocks[tower]}.0.{hidden}'
    mlp = shape_of(source, first)[0] if first in source else 4 * size
    sizes[f'{tower}_width'] = size
    sizes[f'{tower}_layers'] = count(source, f'{blocks[tower]}.')
    sizes[f'{tower}_heads'] = max(size // HEAD_SIZE, 1)
    sizes[f'{tower}_mlp'] = 0 if mlp == 4 * size else mlp
  return ClipConfig(**{**sizes, **told})


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


def resized(
  source: Tensors, config: ClipConfig, positions: str, prompts: str | None = None
) -> Tensors:
  """Returns the tensors with tables of positions that fit `config.image_size`.

  Args:
    source: tensors by name.
    config: the wanted sizes.
    positions: name of the table of positions.
    prompts: name of the mask prompts. They belong to positions too; a single one for
      all positions is repeated, which is what it means.
  """
  side = config.image_size // config.patch
  changed = {}
  if positions in source and shape_of(source, positions)[0] != 1 + side * side:
    table = jnp.asarray(source[positions])
    changed[positions] = np.asarray(resize_positions(table, (side, side)))
  if prompts in source and shape_of(source, prompts)[1] != side * side:
    table = source[prompts]
    if table.shape[1] == 1:
      changed[prompts] = np.repeat(table, side * side, axis=1)
    else:
      changed[prompts] = np.asarray(resize_grid(jnp.asarray(table), (side, side)))
  return Tensors(source, changed)


class ClipFamily(Family):
  """A layout of CLIPs."""

  model = 'clip'

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of our CLIP."""
    return shapes(ClipConfig(**model['clip']))

  def holdable(self, model: Mapping[str, Any]) -> ClipConfig:
    """Returns the sizes of a model; raises ValueError if it has mask prompts."""
    config = ClipConfig(**model['clip'])
    if config.prompt_depth and self.name != 'ovseg_clip':
      raise UserError(
        f'this CLIP has mask prompts of depth {config.prompt_depth}, which the layout '
        f'{self.name!r} cannot hold; use --export=ovseg_clip'
      )
    return config


class _Clip(ClipFamily):
  """A layout with OpenAI's names."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By names, types and what comes along.

    What was trained from OpenAI's weights without mask prompts has the names of
    open_clip, and is taken for it; the command says so.
    """
    plain = strip_prefix(source)
    needed = {'visual.conv1.weight', 'visual.proj', 'token_embedding.weight'}
    if any(_WHOLE_MODEL in name for name in source) or not needed <= set(plain):
      return False
    if any(name.endswith(_PROMPTS) for name in source):
      return self.name == 'ovseg_clip'
    # OpenAI's own rule: matrices are half precision, norms are not.
    halves = [
      plain.entry(name).dtype == np.float16
      for name in ('visual.conv1.weight', 'visual.ln_pre.weight')
      if name in plain
    ]
    archive = 'input_resolution' in plain or halves == [True, False]
    archive = archive and not open_clip.describes(settings)
    return self.name == ('openai' if archive else 'open_clip')

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes the CLIP, also of a whole OVSeg model."""
    plain = strip_prefix(source)
    activation = 'gelu' if self.name == 'open_clip' else 'quick_gelu'
    config = dataclasses.replace(infer_config(plain), activation=activation)
    config = open_clip.with_settings(config, settings)
    config = dataclasses.replace(config, **options.sizes)
    constants = matching(plain, CONSTANTS)
    held = resized(plain.without(constants), config, _POSITIONS, _PROMPTS)
    config, params = convert(held, config)
    if any(n.endswith(_PROMPTS) and 0 in shape_of(source, n) for n in source):
      constants.append(_PROMPTS)
    model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
    others = [n.removeprefix('module.') for n in source if _WHOLE_MODEL not in n]
    whole = len(others) < len(source)
    left_out = tuple(sorted({n.split('.')[0] for n in others})) if whole else ()
    return Conversion(model, params, held, tuple(constants), left_out)

  def rules(
    self, model: Mapping[str, Any], source: str = '', target: str = ''
  ) -> list[Rule]:
    """The table of names, which may have `source` and paths `target` in front."""
    config = self.holdable(model)
    if config.activation != 'quick_gelu' and self.name != 'open_clip':
      raise UserError(
        f'this CLIP has the activation {config.activation!r}; whatever reads '
        f'{self.name!r} files computes quick_gelu. Use --export=open_clip or '
        '--export=hf_clip'
      )
    return rules(config, source, target)

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Sizes; of prompts, the empty tensor of a depth of 0."""
    c = ClipConfig(**model['clip'])
    if name == _PROMPTS:
      patches = (c.image_size // c.patch) ** 2
      return np.zeros((0, patches, c.vision_width), np.float32)
    field = {'input_resolution': 'image_size'}.get(name, name)
    return np.asarray(getattr(c, field), np.int64)

  def notes(self, model: Mapping[str, Any]) -> list[str]:
    """What is not the usual."""
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
    if self.name == 'open_clip':
      odd.insert(0, f'activation {c.activation}')
    return [f'the file does not say: {", ".join(odd)}'] if odd else []


OPENAI = _Clip(
  'openai',
  'visual.conv1.weight and transformer.resblocks.*, with input_resolution beside them '
  'or matrices in float16 and norms in float32; quick-GELU',
)
OPEN_CLIP = _Clip(
  'open_clip',
  "OpenAI's names without input_resolution; the activation of open_clip_config.json, "
  'else GELU unless --activation=quick_gelu',
)
OVSEG_CLIP = _Clip(
  'ovseg_clip',
  "OpenAI's names with visual.mask_embedding, or fine-tuned from OpenAI's weights, or "
  'the CLIP (clip_adapter.clip_model.*) of a whole OVSeg model; quick-GELU',
)
