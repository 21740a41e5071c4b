"""CLIP checkpoints of OpenAI, open_clip and OVSeg, which name their tensors alike."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import open_clip, timm_convnext, timm_trunk
from ovs_jax.convert.clip_sizes import HEAD_SIZE, resized, sized
from ovs_jax.convert.family import Conversion, Family, Options, Settings
from ovs_jax.convert.rules import Rule, apply, table
from ovs_jax.convert.tensors import (
  Source,
  Tensors,
  matching,
  shape_of,
)
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import drawn_shapes
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.layers import NORM_EPSILON

# The vision towers of open_clip's ViT-H-14, ViT-g-14 and ViT-bigG-14 have other heads.
WIDE_HEADS = {1280: 16, 1408: 16, 1664: 16}

# Where CLIP sits inside other checkpoints: a distributed run's, and OVSeg's.
PREFIXES = ('module.', 'clip_model.', 'clip_adapter.clip_model.')
_WHOLE_MODEL = 'clip_adapter.clip_model.'

# Entries of OpenAI's archives that hold no parameter.
CONSTANTS = (r'input_resolution', r'context_length', r'vocab_size')
_PROMPTS, _POSITIONS = 'visual.mask_embedding', 'visual.positional_embedding'


_TEXT = """
  positional_embedding     text/positional_embedding      same
  token_embedding.weight   text/token_embedding/embedding same
  ln_final                 text/ln_final                  norm
"""
_TEXT_PROJECTION = {
  'matrix': 'text_projection text/text_projection same',
  'bias': 'text_projection text/head linear',
  'none': '',
}
_VISION = """
  conv1                                            conv1   filters
  <name:class_embedding|positional_embedding|proj> <name>  same
  ln_post                                          ln_post norm
"""
_BLOCK = """
  attn                     attn     attention
  <norm:ln_1|ln_2>         <norm>   norm
  mlp.<part:c_fc|c_proj>   <part>   linear
"""


def rules(config: ClipConfig, source: str = '', target: str = '') -> list[Rule]:
  """Returns the table for a CLIP with or without mask prompts."""
  image, blocks = config.image_tower, 'transformer.resblocks.<layer>.'
  top = 'logit_scale logit_scale same '
  if config.scores == 'sigmoid':
    top += 'logit_bias logit_bias same '
  if config.prompt_depth:
    top += f'{_PROMPTS} visual/mask_prompt same'
  timm = timm_trunk.has(image)
  inside = f'{source}text.' if timm and not image.stages else source
  text = _TEXT + _TEXT_PROJECTION[config.text_tower.projection]
  found = [
    *table(top, source, target),
    *table(text, inside, target),
    *table(_BLOCK, f'{inside}{blocks}', f'{target}text/blocks/'),
  ]
  if image.stages:
    return [
      *found,
      *timm_convnext.rules(image, f'{source}visual.', f'{target}visual/'),
    ]
  if timm:
    trunk = f'{source}{timm_trunk.PREFIX}'
    return [*found, *timm_trunk.rules(image, trunk, f'{target}visual/')]
  vision = _VISION + ('ln_pre ln_pre norm' if image.pre_norm else '')
  return [
    *found,
    *table(vision, f'{source}visual.', f'{target}visual/'),
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


def _as_one_class(source: Tensors) -> Tensors:
  """Gives the tensors of open_clip's CustomTextCLIP the names of its CLIP."""
  if timm_trunk.KERNEL in source or 'text.token_embedding.weight' not in source:
    return source
  return source.rename(lambda name: name.removeprefix('text.'))


def infer_config(source: Source, settings: Settings = None) -> ClipConfig:
  """Returns the sizes of a CLIP from the shapes of its tensors.

  What shapes do not tell (heads, activation) is that of OpenAI's models, or of the
  `settings` in an open_clip_config.json.

  Raises:
    ValueError: it is not a CLIP with a vision transformer, or one that is not
      supported.
  """
  source, told = strip_prefix(source), open_clip.told(settings)
  if timm_convnext.KERNEL in source:
    timm_trunk.check_told(told)
    return timm_convnext.sized(source, told, open_clip.image_size(settings))
  if timm_trunk.KERNEL in source:
    timm_trunk.check_told(told)
    return _infer_trunk(source, told)
  config = sized(
    source,
    kernel='visual.conv1.weight',
    tables=(_POSITIONS, 'positional_embedding', 'token_embedding.weight'),
    embed=('visual.proj', 1),
    blocks={'vision': 'visual.transformer.resblocks', 'text': 'transformer.resblocks'},
    hidden='mlp.c_fc.bias',
    what='a CLIP checkpoint with a vision transformer',
    **told,
  )
  width = config.vision_width
  heads = WIDE_HEADS.get(width, config.vision_heads)
  if told:
    heads = open_clip.vision_heads(settings or {}, width)
  return dataclasses.replace(
    config,
    vision_heads=heads,
    prompt_depth=shape_of(source, _PROMPTS)[0] if _PROMPTS in source else 0,
  )


def _infer_trunk(source: Source, told: Mapping[str, Any]) -> ClipConfig:
  """Returns the sizes of a CLIP whose image tower has timm's names."""
  kind = told['image_tower']
  hidden = 'mlp.fc1_x.bias' if kind.gated else 'mlp.fc1.bias'
  config = sized(
    source,
    kernel=timm_trunk.KERNEL,
    tables=(
      timm_trunk.POSITIONS,
      'text.positional_embedding',
      'text.token_embedding.weight',
    ),
    embed=(f'{timm_trunk.PREFIX}{timm_trunk.EMBED[kind.projection]}', 0),
    blocks={'vision': timm_trunk.BLOCKS, 'text': 'text.transformer.resblocks'},
    hidden={'vision': hidden, 'text': 'mlp.c_fc.bias'},
    what='a CLIP of open_clip with an image tower of timm',
    **told,
  )
  if timm_trunk.POOL_MLP not in source:
    return config
  (units,) = shape_of(source, timm_trunk.POOL_MLP)
  units = 0 if units == config.vision.mlp else units
  return dataclasses.replace(
    config, image_tower=dataclasses.replace(kind, pool_mlp=units)
  )


def shapes(config: ClipConfig) -> dict[str, Any]:
  """Returns the shapes of our parameters, without computing any."""
  return drawn_shapes(init_clip, config)


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


class ClipFamily(Family):
  """A layout of CLIPs."""

  model = 'clip'

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of our CLIP."""
    return shapes(ClipConfig.from_dict(model['clip']))

  def holdable(self, model: Mapping[str, Any]) -> ClipConfig:
    """Returns the sizes of a model; raises ValueError if it has mask prompts."""
    config = ClipConfig.from_dict(model['clip'])
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
    if {timm_trunk.KERNEL, 'text.token_embedding.weight'} <= set(plain):
      return self.name == 'open_clip'
    plain = _as_one_class(plain)
    if {timm_convnext.KERNEL, 'token_embedding.weight'} <= set(plain):
      return self.name == 'open_clip'
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
    plain = _as_one_class(strip_prefix(source))
    if open_clip.describes(settings):
      config = infer_config(plain, settings)
    else:
      activation = 'gelu' if self.name == 'open_clip' else 'quick_gelu'
      config = dataclasses.replace(infer_config(plain), activation=activation)
    config = options.resizing(dataclasses.replace(config, **options.sizes))
    constants = matching(plain, CONSTANTS)
    trunk = timm_trunk.has(config.image_tower)
    positions = timm_trunk.POSITIONS if trunk else _POSITIONS
    held = resized(plain.without(constants), config, positions, _PROMPTS)
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
    c = ClipConfig.from_dict(model['clip'])
    if name == _PROMPTS:
      patches = (c.image_size // c.patch) ** 2
      return np.zeros((0, patches, c.vision_width), np.float32)
    field = {'input_resolution': 'image_size'}.get(name, name)
    return np.asarray(getattr(c, field), np.int64)

  def notes(self, model: Mapping[str, Any]) -> list[str]:
    """What is not the usual."""
    c = ClipConfig.from_dict(model['clip'])
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
