"""CLIPSeg's files: both layouts there and back, and what is said of wrong ones."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import torch_files
from safetensors.numpy import load_file, save_file
from tiny_clip import draw, hf_settings, openai_shapes, placeholders
from tiny_clip import to_hf as clip_to_hf
from tiny_clipseg import (
  CLIP,
  DECODER,
  TINY,
  original_shapes,
  to_hf,
  with_decoder,
)

from ovs_jax.convert import SOURCES, clip, clipseg
from ovs_jax.convert.command import main
from ovs_jax.convert.family import Options
from ovs_jax.core.checkpoint import load_config, load_model, save_model
from ovs_jax.core.tree import count_parameters
from ovs_jax.models.clipseg import PRESETS, ClipSegConfig

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)
ORIGINAL = draw(original_shapes(TINY), np.float32)
CLIP_TENSORS = draw(openai_shapes(CLIP), np.float32)
FOLDER = {
  **to_hf(ORIGINAL),
  **{f'clip.{k}': v for k, v in clip_to_hf(CLIP_TENSORS).items()},
}
SETTINGS = {
  **hf_settings(CLIP),
  'model_type': 'clipseg',
  'extract_layers': [0, 1, 2],
  'conditional_layer': 0,
}


def without_dead(source):
  return {k: v for k, v in source.items() if not k.startswith('reduce.')}


def equal_bits(got, want):
  assert sorted(got) == sorted(want)
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.fixture(autouse=True)
def activations_of_the_tiny_clip(monkeypatch):
  """Files of the original do not say which activations are read; ours has fewer."""
  infer = clipseg.infer_decoder
  default = {'extract_layers': DECODER.extract}
  monkeypatch.setattr(
    clipseg, 'infer_decoder', lambda s, layout, c=None: infer(s, layout, c or default)
  )


@pytest.fixture(scope='module')
def clip_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp('clip') / 'b'
  config, params = clip.convert(CLIP_TENSORS, CLIP)
  save_model(directory, params, {'model': 'clip', 'clip': dataclasses.asdict(config)})
  return directory


def test_a_folder_there_and_back(tmp_path, capsys):
  path = tmp_path / 'rd'
  path.mkdir()
  save_file(FOLDER, path / 'model.safetensors')
  (path / 'config.json').write_text(json.dumps(SETTINGS))
  output, back = tmp_path / 'o', tmp_path / 'back'
  assert main([f'--input={path}', f'--output={output}', '--check']) == 0
  printed = capsys.readouterr().out
  assert f'hf_clipseg: {len(FOLDER)} tensors' in printed and 'all equal' in printed
  config = ClipSegConfig.from_dict(load_config(output, kind='clipseg')['clipseg'])
  assert config.decoder == DECODER
  assert dataclasses.replace(config.clip, unroll=1) == CLIP
  assert config.image_size == 352
  assert main([f'--input={output}', f'--output={back}', '--export=hf_clipseg']) == 0
  equal_bits(load_file(back / 'model.safetensors'), FOLDER)
  written = json.loads((back / 'config.json').read_text())
  again = SOURCES['hf_clipseg'].convert(FOLDER, written, Options())
  assert ClipSegConfig.from_dict(again.model['clipseg']) == config


@pytest.mark.parametrize('size', [480, {'height': 480, 'width': 480}])
def test_pictures_are_as_large_as_the_file_says(size, tmp_path):
  path = tmp_path / 'rd'
  path.mkdir()
  save_file(FOLDER, path / 'model.safetensors')
  (path / 'config.json').write_text(json.dumps(SETTINGS))
  (path / 'preprocessor_config.json').write_text(json.dumps({'size': size}))
  output, back, again = tmp_path / 'o', tmp_path / 'back', tmp_path / 'again'
  assert main([f'--input={path}', f'--output={output}']) == 0
  assert main([f'--input={output}', f'--output={back}', '--export=hf_clipseg']) == 0
  written = json.loads((back / 'preprocessor_config.json').read_text())
  assert written['size'] == {'height': 480, 'width': 480}
  assert written['image_processor_type'] == 'ViTImageProcessor'
  assert written['image_mean'] == [0.485, 0.456, 0.406]
  assert (written['resample'], written['do_center_crop']) == (2, False)
  assert main([f'--input={back}', f'--output={again}']) == 0
  first, second = (load_config(p, kind='clipseg')['clipseg'] for p in (output, again))
  assert first == second and first['image_size'] == 480


def test_a_decoder_and_a_clip_there_and_back(tmp_path, clip_dir, capsys):
  views, stores = torch_files.tensors(ORIGINAL)
  path = torch_files.write_zip(tmp_path / 'rd.pth', views, stores)
  output, back = tmp_path / 'o', tmp_path / 'back.safetensors'
  arguments = [f'--input={path}', f'--output={output}', '--check']
  assert main(arguments) == 2
  assert 'add --clip=DIR' in capsys.readouterr().err
  assert main([*arguments, f'--clip={clip_dir}']) == 0
  printed = capsys.readouterr().out
  assert 'constants without a parameter: reduce' in printed
  assert main([f'--input={output}', f'--output={back}', '--export=clipseg']) == 0
  dead = {k: np.zeros_like(v) for k, v in ORIGINAL.items() if k.startswith('reduce.')}
  equal_bits(load_file(back), {**ORIGINAL, **dead})
  # The same model as the folder's.
  params, _ = load_model(output)
  want = SOURCES['hf_clipseg'].convert(FOLDER, SETTINGS, Options()).params
  jax.tree.map(np.testing.assert_array_equal, params, want)


def test_a_whole_model_of_the_original():
  whole = {
    **ORIGINAL,
    **{f'clip_model.{k}': v for k, v in CLIP_TENSORS.items()},
    'model.proj': CLIP_TENSORS['visual.proj'],
  }
  conversion = SOURCES['clipseg'].convert(whole, None, Options())
  want = SOURCES['hf_clipseg'].convert(FOLDER, SETTINGS, Options()).params
  jax.tree.map(np.testing.assert_array_equal, conversion.params, want)
  assert conversion.left_out == ('model',)
  assert set(conversion.constants) == {'reduce.weight', 'reduce.bias'}
  held = without_dead(whole)
  del held['model.proj']
  back = SOURCES['clipseg'].export(conversion.params, conversion.model, list(held))
  equal_bits(back, held)


@pytest.mark.parametrize('head, strides', [('simple', (4,)), ('complex', (1, 3))])
def test_heads_are_read_from_shapes(head, strides):
  config = with_decoder(head=head, strides=strides)
  source = {**FOLDER, **to_hf(draw(original_shapes(config), np.float32))}
  if head == 'simple':
    source = {
      k: v
      for k, v in source.items()
      if 'transposed_convolution.' not in k or k.split('.')[-2] not in '024'
    }
  conversion = SOURCES['hf_clipseg'].convert(source, SETTINGS, Options())
  assert ClipSegConfig.from_dict(conversion.model['clipseg']).decoder == config.decoder


def test_another_clip_is_refused(clip_dir):
  other = dataclasses.replace(CLIP, vision_width=32)
  config = dataclasses.replace(TINY, clip=other)
  source = draw(original_shapes(config), np.float32)
  with pytest.raises(ValueError, match='made for a CLIP of width 32 .* has width 64'):
    SOURCES['clipseg'].convert(source, None, Options(clip=str(clip_dir)))


def test_everything_wrong_is_in_one_message():
  source = dict(FOLDER)
  del source['decoder.layers.1.mlp.fc2.bias']
  source['decoder.extra'] = np.zeros(3, np.float32)
  with pytest.raises(ValueError) as error:
    SOURCES['hf_clipseg'].convert(source, SETTINGS, Options())
  for part in ('decoder.extra', 'decoder/block_1/c_proj/bias', '1 missing parameters'):
    assert part in str(error.value)


def test_what_the_layouts_cannot_hold():
  conversion = SOURCES['hf_clipseg'].convert(FOLDER, SETTINGS, Options())
  config = with_decoder(film_position='after', film_steps=(0, 1))
  model = {'clipseg': config.to_dict()}
  for family in ('hf_clipseg', 'clipseg'):
    with pytest.raises(ValueError, match=r'film_position after, film_steps \(0, 1\)'):
      SOURCES[family].export(conversion.params, model, [])


def test_recognition():
  for name, source in (('hf_clipseg', FOLDER), ('clipseg', ORIGINAL)):
    assert [k for k, f in SOURCES.items() if f.recognise(source, None)] == [name]
  bare = placeholders(openai_shapes(CLIP))
  assert not any(SOURCES[k].recognise(bare, None) for k in ('hf_clipseg', 'clipseg'))


@pytest.mark.samples
@pytest.mark.parametrize('name', ['rd64', 'rd64_refined'])
def test_published_key_lists(name, monkeypatch):
  monkeypatch.undo()
  keys = SHARED / 'reference' / 'keys'
  (path,) = keys.glob(f'hf_keys_clipseg_{name}_full_*.txt')
  listed = {}
  for line in path.read_text().splitlines():
    if line[0] == 'P':
      key, shape, _ = line[2:].split('\t')
      listed[key] = tuple(int(n) for n in shape.strip('()').split(',') if n.strip())
  model = {'clipseg': PRESETS[name].to_dict()}
  assert sorted(SOURCES['hf_clipseg'].names(model)) == sorted(listed)
  source = placeholders(listed)
  decoder = clipseg.infer_decoder(source, clipseg.HF)
  assert decoder == PRESETS[name].decoder
  lines = (keys / f'orig_clipseg_keys_{name}.txt').read_text().splitlines()
  released = {line[2:].split('\t')[0] for line in lines if line[0] == 'T'}
  assert set(SOURCES['clipseg'].names(model)) == {
    key for key in released if not key.startswith('reduce.')
  }
  assert count_parameters(source) == sum(np.prod(s, dtype=int) for s in listed.values())
