"""CLIP checkpoints: names, sizes, prefixes and the way back."""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest

from ovs_jax.convert import clip
from ovs_jax.convert.rules import export
from ovs_jax.core.tree import count_parameters, flatten
from ovs_jax.models.clip import PRESETS, ClipConfig

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)

TINY = ClipConfig(
  embed_dim=10,
  image_size=8,
  patch=4,
  vision_width=128,
  vision_layers=2,
  vision_heads=2,
  text_width=64,
  text_layers=3,
  text_heads=1,
  context_length=7,
  vocab_size=20,
  prompt_depth=2,
  dtype='float32',
  remat=False,
  unroll=1,
)


def openai_shapes(c):
  """Returns names and shapes of a checkpoint, as OpenAI's archives have them."""
  found = {
    'positional_embedding': (c.context_length, c.text_width),
    'text_projection': (c.text_width, c.embed_dim),
    'logit_scale': (),
    'visual.class_embedding': (c.vision_width,),
    'visual.positional_embedding': (
      1 + (c.image_size // c.patch) ** 2,
      c.vision_width,
    ),
    'visual.proj': (c.vision_width, c.embed_dim),
    'visual.conv1.weight': (c.vision_width, 3, c.patch, c.patch),
    'token_embedding.weight': (c.vocab_size, c.text_width),
  }
  norms = [
    ('ln_final', c.text_width),
    ('visual.ln_pre', c.vision_width),
    ('visual.ln_post', c.vision_width),
  ]
  for tower, width, layers in (
    ('transformer', c.text_width, c.text_layers),
    ('visual.transformer', c.vision_width, c.vision_layers),
  ):
    for i in range(layers):
      block = f'{tower}.resblocks.{i}'
      norms += [(f'{block}.ln_1', width), (f'{block}.ln_2', width)]
      for name, rows, columns in (
        ('attn.in_proj_', 3 * width, width),
        ('attn.out_proj.', width, width),
        ('mlp.c_fc.', 4 * width, width),
        ('mlp.c_proj.', width, 4 * width),
      ):
        found[f'{block}.{name}weight'] = (rows, columns)
        found[f'{block}.{name}bias'] = (rows,)
  for name, width in norms:
    found |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
  if c.prompt_depth:
    patches = (c.image_size // c.patch) ** 2
    found['visual.mask_embedding'] = (c.prompt_depth, patches, c.vision_width)
  return found


def draw(shapes):
  rng = np.random.default_rng(0)
  return {name: rng.normal(size=s).astype(np.float16) for name, s in shapes.items()}


def placeholders(shapes):
  """Arrays that take no memory, whatever their shape."""
  return {name: np.broadcast_to(np.float32(0), s) for name, s in shapes.items()}


@pytest.mark.parametrize('depth', [0, 2])
def test_every_tensor_is_used_and_every_parameter_filled(depth):
  config = dataclasses.replace(TINY, prompt_depth=depth)
  source = draw(openai_shapes(config))
  got, params = clip.convert(source)
  assert got == config
  assert len(source) == 12 * 5 + 14 + bool(depth)
  assert count_parameters(params) == sum(x.size for x in source.values())
  back = export(params, clip.rules(config), source)
  for name, value in source.items():
    np.testing.assert_array_equal(back[name], value)


# The numbers of tensors of the published files; the B and L towers differ in depth.
@pytest.mark.parametrize(
  'name, depth, count',
  [('b32', 0, 302), ('b16', 3, 303), ('l14', 3, 447), ('l14_336', 0, 446)],
)
def test_published_sizes_are_inferred(name, depth, count):
  config = dataclasses.replace(PRESETS[name], prompt_depth=depth)
  source = placeholders(openai_shapes(config))
  assert len(source) == count
  assert clip.infer_config(source) == config


def test_prefixes_and_constants():
  source = draw(openai_shapes(TINY))
  _, want = clip.convert(source)
  of_a_run = {f'module.{k}': v for k, v in source.items()}
  of_ovseg = {f'clip_adapter.clip_model.{k}': v for k, v in source.items()}
  of_ovseg |= {'backbone.stem.conv1.weight': np.zeros(1), 'criterion.empty_weight': 1}
  archive = {k: np.array(v) for k, v in (('input_resolution', 8), ('vocab_size', 20))}
  for other in (of_a_run, of_ovseg, {**source, **archive}):
    _, params = clip.convert(other)
    jax.tree.map(np.testing.assert_array_equal, params, want)


def test_empty_prompts_mean_none():
  config = dataclasses.replace(TINY, prompt_depth=0)
  source = draw(openai_shapes(config))
  source['visual.mask_embedding'] = np.zeros((0, 4, 128), np.float32)
  got, params = clip.convert(source)
  assert got.prompt_depth == 0 and 'visual/mask_prompt' not in flatten(params)


def test_other_checkpoints_are_refused():
  with pytest.raises(ValueError, match='not a CLIP checkpoint .*visual.conv1.weight'):
    clip.convert({'backbone.stem.conv1.weight': np.zeros((4, 3, 3, 3))})
  source = draw(openai_shapes(TINY))
  del source['ln_final.bias']
  source['visual.head.weight'] = np.zeros(3)
  with pytest.raises(ValueError, match='1 unused .*1 missing parameters'):
    clip.convert(source)


@pytest.mark.samples
@pytest.mark.parametrize(
  'pattern, depth', [('openai_clip_keys_*.txt', 0), ('ovseg_keys_clip_*.txt', 3)]
)
def test_published_key_lists(pattern, depth):
  paths = sorted((SHARED / 'reference' / 'keys').glob(pattern))
  assert paths, f'no {pattern} in {SHARED}'
  for path in paths:
    rows = [
      line.split('\t') for line in path.read_text().splitlines() if line[0] != '#'
    ]
    listed = {
      name: tuple(int(n) for n in shape.strip('()').split(',') if n.strip())
      for name, shape, *_ in rows
    }
    config = clip.infer_config(placeholders(listed))
    assert config.prompt_depth == depth
    assert listed == openai_shapes(config)
    _, params = clip.convert(placeholders(listed))
    assert len(flatten(params)) > 40
