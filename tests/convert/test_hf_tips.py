"""TIPSv2 folders of Hugging Face: from files to ours, and back."""

import copy
import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ovs_jax.convert import SOURCES, exchange
from ovs_jax.convert.family import Options
from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.tree import flatten
from ovs_jax.models.clip import Clip, ClipConfig, trim_tokens

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens' / 'towers.npz'
BLOCK = 'vision_model.encoder.layer.0'
# Orbax leaves threads behind that complain of their closed event loop.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def model(name='hf_tipsv2'):
  """Returns settings and tensors of a tiny TIPSv2, 40 ids and 8 tokens of text."""
  with np.load(GOLDENS) as file:
    settings = json.loads(str(file[f'{name}/json']))['settings']
    start = f'{name}/w/'
    names = [k for k in file.files if k.startswith(start)]
    tensors = {k[len(start) :]: file[k].astype(np.float32) for k in names}
  return settings, tensors


def convert(settings, tensors, **more):
  return SOURCES['hf_tips'].convert(tensors, {**settings, **more}, Options())


@pytest.mark.parametrize(
  ('path', 'key', 'value'),
  [
    ((), 'model_type', 'siglip'),
    ((), 'temperature_init_value', 0),
    ((), 'decoder_config', {'width': 8}),
    (('vision_config',), 'qkv_bias', False),
    (('vision_config',), 'use_swiglu_ffn', 1),
    (('vision_config',), 'head_dim', 8),
    (('vision_config',), 'num_channels', 1),
    (('text_config',), 'pooling_epsilon', 1e-6),
    (('text_config',), 'pad_token_id', None),
    (('text_config',), 'projection_size', 8),
    (('preprocessor_config.json',), 'do_resize', False),
    (('preprocessor_config.json',), 'patch_size', 14),
  ],
)
def test_what_is_not_understood_is_refused_by_name(path, key, value) -> None:
  settings, tensors = model()
  settings = copy.deepcopy(settings)
  section = settings
  for name in path:
    section = section.setdefault(name, {})
  section[key] = value
  with pytest.raises(ValueError) as error:
    convert(settings, tensors)
  assert f'{key} {value!r}' in str(error.value)


def test_layer_scales_are_folded_and_the_temperature_is_a_logarithm() -> None:
  settings, tensors = model()
  params = convert(settings, tensors).params
  scale = tensors[f'{BLOCK}.layer_scale2.lambda1']
  kernel = tensors[f'{BLOCK}.mlp.fc2.weight'].T * scale[None]
  np.testing.assert_allclose(params['visual']['blocks']['c_proj']['kernel'][0], kernel)
  bias = tensors[f'{BLOCK}.attention.o_proj.bias']
  bias = bias * tensors[f'{BLOCK}.layer_scale1.lambda1']
  np.testing.assert_allclose(params['visual']['blocks']['attn']['out']['bias'][0], bias)
  temperature = tensors.pop('temperature')
  assert params['logit_scale'] == pytest.approx(-np.log(temperature), rel=1e-6)
  # Published checkpoints have none: that of config.json counts.
  found = convert(settings, tensors, temperature_init_value=0.01).params
  assert found['logit_scale'] == pytest.approx(np.log(100), rel=1e-6)


def test_pictures_are_not_normalised() -> None:
  settings, tensors = model()
  size = {'height': 12, 'width': 12}
  given = {'do_normalize': False, 'image_mean': [0.5] * 3, 'size': size, 'resample': 2}
  for more in ({}, {'preprocessor_config.json': given}):
    pixels = convert(settings, tensors, **more).model['clip']['pixels']
    assert pixels['mean'] == (0, 0, 0) and pixels['std'] == (1, 1, 1)
    assert (pixels['resize'], pixels['interpolation']) == ('squash', 'bilinear')


def test_padding_changes_no_text() -> None:
  settings, tensors = model()
  found = convert(settings, tensors)
  config = ClipConfig.from_dict(found.model['clip'])
  ids = np.array([[5, 7, 9, 0, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0, 0, 0]], np.int32)
  run = jax.jit(lambda x: Clip(config).apply({'params': found.params}, x, method=text))
  short = trim_tokens(ids, 1)
  assert short.shape == (2, 3) and not config.text_tower.sees_padding
  np.testing.assert_allclose(run(short), run(ids), rtol=1e-5, atol=1e-6)


def text(clip: Clip, tokens):
  return clip.encode_text(tokens)


@pytest.mark.parametrize('name', ['hf_tipsv2', 'hf_tipsv2_swiglu'])
def test_from_a_folder_and_back(name: str, tmp_path: pathlib.Path) -> None:
  settings, tensors = model(name)
  folder = tmp_path / 'tips'
  folder.mkdir()
  save_file(tensors, folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(settings))
  assert exchange.convert(folder, tmp_path / 'ours').family == 'hf_tips'
  exchange.check(folder, tmp_path / 'ours')
  exchange.export(tmp_path / 'ours', tmp_path / 'back', layout='hf_tips')
  exchange.convert(tmp_path / 'back', tmp_path / 'again')
  first, again = (tmp_path / x for x in ('ours', 'again'))
  assert load_config(first)['clip'] == load_config(again)['clip']
  again = flatten(load_model(again)[0])
  for path, value in flatten(load_model(first)[0]).items():
    np.testing.assert_allclose(again[path], value, rtol=1e-6, err_msg=path)
