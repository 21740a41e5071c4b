"""CLIP checkpoints: names, sizes, prefixes and the way back."""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_clip import TINY, draw, openai_shapes, placeholders

from ovs_jax.convert import clip
from ovs_jax.convert.family import Options
from ovs_jax.convert.rules import export
from ovs_jax.core.tree import count_parameters, flatten
from ovs_jax.models.clip import PRESETS, ClipConfig

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)


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
  adapted = {f'clip_model.{k}': v for k, v in source.items()}
  both = {f'module.{k}': v for k, v in of_ovseg.items()}
  for other in (of_a_run, of_ovseg, {**source, **archive}, adapted, both):
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


def convert(family, source, **wishes):
  return family.convert(source, None, Options(**wishes))


def test_families_differ_in_activation():
  source = draw(openai_shapes(dataclasses.replace(TINY, prompt_depth=0)))
  found = {
    family: convert(family, source).model['clip']['activation']
    for family in (clip.OPENAI, clip.OPEN_CLIP, clip.OVSEG_CLIP)
  }
  assert list(found.values()) == ['quick_gelu', 'gelu', 'quick_gelu']
  told = convert(clip.OPEN_CLIP, source, activation='quick_gelu')
  assert told.model['clip']['activation'] == 'quick_gelu'


def test_wishes_that_do_not_fit():
  source = draw(openai_shapes(TINY))
  with pytest.raises(ValueError, match='vision_width 128 is not a multiple of 3 heads'):
    convert(clip.OPENAI, source, vision_heads=3)
  with pytest.raises(ValueError, match='image_size 10 is not a multiple of patch 4'):
    convert(clip.OPENAI, source, image_size=10)


def test_other_widths_and_heads():
  config = dataclasses.replace(TINY, vision_mlp=300, text_mlp=100)
  source = draw(openai_shapes(config))
  assert clip.infer_config(source) == config
  assert count_parameters(clip.convert(source)[1]) == sum(
    x.size for x in source.values()
  )
  # open_clip's ViT-H-14, ViT-g-14 and ViT-bigG-14 have 16 heads each.
  for width, mlp in ((1280, 5120), (1408, 6144), (1664, 8192)):
    large = dataclasses.replace(TINY, vision_width=width, vision_heads=16)
    large = dataclasses.replace(large, vision_mlp=0 if mlp == 4 * width else mlp)
    assert clip.infer_config(placeholders(openai_shapes(large))) == large


def test_another_input_size_resizes_positions_and_prompts():
  source = draw(openai_shapes(TINY), np.float32)
  conversion = convert(clip.OVSEG_CLIP, source, image_size=16)
  visual = conversion.params['visual']
  assert visual['positional_embedding'].shape == (17, 128)
  assert visual['mask_prompt'].shape == (2, 16, 128)
  np.testing.assert_array_equal(
    visual['positional_embedding'][0], source['visual.positional_embedding'][0]
  )
  # The mean of a grid survives its resizing: the weights sum to 1 and are symmetric.
  np.testing.assert_allclose(
    visual['mask_prompt'].mean(1), source['visual.mask_embedding'].mean(1), atol=1e-5
  )
  other = jax.tree.map(np.array_equal, conversion.params, clip.convert(source)[1])
  assert [path for path, same in flatten(other).items() if not same] == [
    'visual/mask_prompt',
    'visual/positional_embedding',
  ]


def test_one_prompt_for_all_positions_is_repeated():
  source = draw(openai_shapes(TINY))
  source['visual.mask_embedding'] = source['visual.mask_embedding'][:, :1]
  prompts = convert(clip.OVSEG_CLIP, source).params['visual']['mask_prompt']
  assert prompts.shape == (2, 4, 128)
  np.testing.assert_array_equal(prompts[:, 3:], source['visual.mask_embedding'])


def test_what_a_layout_cannot_hold_is_refused():
  conversion = convert(clip.OVSEG_CLIP, draw(openai_shapes(TINY)))
  for family in (clip.OPENAI, clip.OPEN_CLIP):
    with pytest.raises(ValueError, match='prompts of depth 2.*--export=ovseg_clip'):
      family.export(conversion.params, conversion.model, ['logit_scale'])
  plain = draw(openai_shapes(dataclasses.replace(TINY, prompt_depth=0)))
  conversion = convert(clip.OPEN_CLIP, plain)
  for family in (clip.OPENAI, clip.OVSEG_CLIP):
    with pytest.raises(ValueError, match="activation 'gelu'.*--export=open_clip"):
      family.export(conversion.params, conversion.model, ['logit_scale'])
  note = ['the file does not say: activation gelu']
  assert clip.OPEN_CLIP.notes(conversion.model) == note


def test_names_are_those_of_the_files():
  for depth in (0, 2):
    config = dataclasses.replace(TINY, prompt_depth=depth)
    model = {'clip': dataclasses.asdict(config)}
    assert sorted(clip.OVSEG_CLIP.names(model)) == sorted(openai_shapes(config))


@pytest.mark.parametrize(
  'change, fitting',
  [
    (lambda s: s | {'input_resolution': np.array(8)}, {'openai'}),
    (lambda s: s, {'openai'}),  # matrices in half precision, norms not
    (lambda s: {k: np.float32(v) for k, v in s.items()}, {'open'}),
    (lambda s: s | {'visual.mask_embedding': np.zeros((0, 4, 128))}, {'ovseg'}),
    (lambda s: {f'module.{k}': v for k, v in s.items()}, {'openai'}),
    (lambda s: {f'clip_adapter.clip_model.{k}': v for k, v in s.items()}, set()),
    (lambda s: {k: v for k, v in s.items() if k != 'visual.proj'}, set()),
  ],
)
def test_recognition(change, fitting):
  plain = draw(openai_shapes(dataclasses.replace(TINY, prompt_depth=0)))
  source = change(plain)
  families = {
    'openai': clip.OPENAI,
    'open': clip.OPEN_CLIP,
    'ovseg': clip.OVSEG_CLIP,
  }
  found = {name for name, f in families.items() if f.recognise(source, None)}
  assert found == fitting


def test_the_parts_of_a_whole_model_that_are_left_out_are_named():
  source = {
    f'clip_adapter.clip_model.{k}': v for k, v in draw(openai_shapes(TINY)).items()
  }
  source |= {'backbone.a': np.zeros(1), 'sem_seg_head.b': np.zeros(1)}
  conversion = convert(clip.OVSEG_CLIP, source)
  assert conversion.left_out == ('backbone', 'sem_seg_head')


@pytest.mark.samples
@pytest.mark.parametrize(
  'pattern, depth',
  [
    ('openai_clip_keys_*.txt', 0),
    ('openclip_keys_*.txt', 0),
    ('ovseg_keys_clip_*.txt', 3),
  ],
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


def test_positions_may_be_resized_as_open_clip_does_it():
  source = draw(openai_shapes(TINY), np.float32)
  conversion = convert(clip.OPENAI, source, image_size=16, antialias=True)
  tower = conversion.model['clip']['image_tower']
  assert tower == {**dataclasses.asdict(TINY.image_tower), 'antialias': True}
  assert ClipConfig.from_dict(conversion.model['clip']).is_plain
  table = source['visual.positional_embedding']
  square = Image.fromarray(table[1:, 5].reshape(2, 2))
  want = np.asarray(square.resize((4, 4), Image.Resampling.BICUBIC))
  got = conversion.params['visual']['positional_embedding']
  np.testing.assert_allclose(got[1:, 5].reshape(4, 4), want, atol=1e-5)
  usual = convert(clip.OPENAI, source, image_size=16).params['visual']
  assert np.abs(got - usual['positional_embedding']).max() > 0.01
