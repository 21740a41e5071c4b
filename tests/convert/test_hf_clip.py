"""CLIP folders of Hugging Face: names, settings, and equality with OpenAI's layout."""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest
from tiny_clip import (
  TINY,
  draw,
  hf_settings,
  openai_shapes,
  placeholders,
  to_hf,
)

from ovs_jax.convert import clip, hf_clip
from ovs_jax.convert.family import Options
from ovs_jax.core.tree import count_parameters
from ovs_jax.models.clip import PRESETS, ClipConfig

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)
PLAIN = dataclasses.replace(TINY, prompt_depth=0)


def convert(source, settings, **wishes):
  return hf_clip.HF_CLIP.convert(source, settings, Options(**wishes))


def config_of(conversion):
  return ClipConfig.from_dict(conversion.model['clip'])


def hf_shapes(c):
  return {k: v.shape for k, v in to_hf(placeholders(openai_shapes(c))).items()}


def test_it_is_the_same_model_as_in_openais_layout():
  source = draw(openai_shapes(PLAIN))
  _, want = clip.convert(source)
  conversion = convert(to_hf(source), hf_settings(PLAIN))
  assert config_of(conversion) == PLAIN
  jax.tree.map(np.testing.assert_array_equal, conversion.params, want)
  assert count_parameters(want) == sum(x.size for x in to_hf(source).values())


def test_back_bit_for_bit():
  source = to_hf(draw(openai_shapes(PLAIN)))
  conversion = convert(source, hf_settings(PLAIN))
  names = hf_clip.HF_CLIP.names(conversion.model)
  assert sorted(names) == sorted(source)
  back = hf_clip.HF_CLIP.export(conversion.params, conversion.model, names)
  for name, value in source.items():
    np.testing.assert_array_equal(back[name], value)
  settings = hf_clip.HF_CLIP.settings(conversion.model)['config.json']
  assert settings['text_config']['hidden_size'] == 64
  assert config_of(convert(back, settings)) == PLAIN


# Sizes of the published models; 12 * 16 + 12 * 16 + 14 tensors in the B towers.
@pytest.mark.parametrize(
  'name, count', [('b32', 398), ('b16', 398), ('l14', 590), ('l14_336', 590)]
)
def test_published_sizes_are_inferred(name, count):
  source = placeholders(hf_shapes(PRESETS[name]))
  assert len(source) == count
  settings = hf_settings(PRESETS[name])
  assert hf_clip.infer_config(source, settings) == PRESETS[name]


def test_what_config_json_says():
  config = dataclasses.replace(PLAIN, vision_mlp=100, text_mlp=90, vision_heads=4)
  config = dataclasses.replace(config, activation='gelu', vision_epsilon=1e-4)
  config = dataclasses.replace(config, text_epsilon=1e-4, end_token=5)
  source = to_hf(draw(openai_shapes(config)))
  settings = hf_settings(config, hidden_act='gelu', layer_norm_eps=1e-4)
  settings['text_config']['eos_token_id'] = 5
  conversion = convert(source, settings)
  assert config_of(conversion) == config
  written = hf_clip.write_settings(conversion.model)
  assert config_of(convert(source, written)) == config
  old = {'text_config_dict': settings['text_config'], 'text_config': None}
  assert config_of(convert(source, {**settings, **old})) == config


def test_what_config_json_leaves_out_is_the_default_of_transformers():
  source = placeholders(hf_shapes(PRESETS['b16']))
  assert hf_clip.infer_config(source, {}) == PRESETS['b16']
  # An end token of 2 is an old way to say the largest id, which is 49407 here.
  for end in (2, 49407):
    settings = {'text_config': {'eos_token_id': end}}
    assert hf_clip.infer_config(source, settings) == PRESETS['b16']


def test_indices_are_constants():
  source = to_hf(draw(openai_shapes(PLAIN)))
  names = [f'{t}_model.embeddings.position_ids' for t in ('text', 'vision')]
  indices = {names[0]: np.arange(7)[None], names[1]: np.arange(5)[None]}
  conversion = convert({**source, **indices}, hf_settings(PLAIN))
  assert conversion.constants == tuple(names)
  for name, value in indices.items():
    made = hf_clip.HF_CLIP.constant(name, conversion.model)
    np.testing.assert_array_equal(made, value)
    assert made.dtype == np.int64


def test_no_settings():
  source = to_hf(draw(openai_shapes(PLAIN)))
  with pytest.raises(ValueError, match='no config.json.*--activation=quick_gelu'):
    convert(source, None)
  assert config_of(convert(source, None, activation='quick_gelu')) == PLAIN


@pytest.mark.parametrize(
  'text, message',
  [
    ({'eos_token_id': None}, 'eos_token_id of config.json is None'),
    ({'eos_token_id': [1, 2]}, r'eos_token_id of config.json is \[1, 2\]'),
    ({'num_attention_heads': 5}, 'text_width 64 is not a multiple of 5 heads'),
  ],
)
def test_settings_that_we_have_not(text, message):
  settings = hf_settings(PLAIN)
  settings['text_config'] |= text
  with pytest.raises(ValueError, match=message):
    convert(to_hf(draw(openai_shapes(PLAIN))), settings)


def test_unknown_activation():
  settings = hf_settings(PLAIN, hidden_act='gelu_new')
  with pytest.raises(ValueError, match="unknown activation .*'gelu_new'; known: gelu"):
    convert(to_hf(draw(openai_shapes(PLAIN))), settings)


def test_everything_wrong_is_in_one_message():
  source = to_hf(draw(openai_shapes(PLAIN)))
  del source['vision_model.post_layernorm.bias']
  source['vision_model.head.weight'] = np.zeros(3)
  key = 'text_model.encoder.layers.1.self_attn.k_proj.weight'
  source[key] = source[key][:, :-1]
  with pytest.raises(ValueError) as error:
    convert(source, hf_settings(PLAIN))
  message = str(error.value)
  for part in (
    '1 unused source tensors',
    '1 other shapes',
    '1 missing parameters',
    'vision_model.head.weight',
    f'{key} (64, 63) gives',
    'visual/ln_post/bias',
  ):
    assert part in message
  with pytest.raises(ValueError, match='not a CLIP of Hugging Face: vision_model'):
    convert({'a': np.zeros(1)}, {})


def test_recognition():
  source = to_hf(draw(openai_shapes(PLAIN)))
  assert hf_clip.HF_CLIP.recognise(source, None)
  assert hf_clip.HF_CLIP.recognise({f'module.{k}': v for k, v in source.items()}, None)
  assert not hf_clip.HF_CLIP.recognise(draw(openai_shapes(PLAIN)), None)
  conversion = convert(
    {f'module.{k}': v for k, v in source.items()}, hf_settings(PLAIN)
  )
  assert set(conversion.tensors) == set(source)


def test_another_input_size():
  source = to_hf(draw(openai_shapes(PLAIN)))
  conversion = convert(source, hf_settings(PLAIN), image_size=12)
  assert conversion.params['visual']['positional_embedding'].shape == (10, 128)
  assert conversion.model['clip']['image_size'] == 12


@pytest.mark.samples
@pytest.mark.parametrize('name, preset', [('vitb16', 'b16'), ('vitl14', 'l14')])
def test_published_key_lists(name, preset):
  (path,) = (SHARED / 'reference' / 'keys').glob(f'hf_keys_clip_{name}_full_*.txt')
  listed = {}
  for line in path.read_text().splitlines():
    if line[0] != '#':
      key, shape, _ = line[2:].split('\t')
      listed[key] = tuple(int(n) for n in shape.strip('()').split(',') if n.strip())
  assert listed == hf_shapes(PRESETS[preset])
  model = {'clip': dataclasses.asdict(PRESETS[preset])}
  assert sorted(hf_clip.HF_CLIP.names(model)) == sorted(listed)
