"""The command: files in every layout to our checkpoints, checked, and back."""

import dataclasses
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import torch_files
from safetensors.numpy import load_file, save_file
from tiny_clip import TINY, draw, hf_settings, openai_shapes, to_hf

import ovs_jax
from ovs_jax.convert import SOURCES, catalogue, clip, command, exchange
from ovs_jax.convert.command import main
from ovs_jax.core.checkpoint import load_config, load_model, save_model
from ovs_jax.models.clip import ClipConfig

PLAIN = dataclasses.replace(TINY, prompt_depth=0)
SOURCE = draw(openai_shapes(PLAIN))
FULL = {name: np.asarray(x, np.float32) for name, x in SOURCE.items()}
ARCHIVE = {
  'input_resolution': np.asarray(8),
  'context_length': np.asarray(7),
  'vocab_size': np.asarray(20),
}


def equal_bits(a, b):
  assert sorted(a) == sorted(b)
  for name in a:
    assert a[name].dtype == b[name].dtype, name
    assert a[name].tobytes() == b[name].tobytes(), name


def write_folder(path, source, settings):
  path.mkdir()
  save_file(source, path / 'model.safetensors')
  (path / 'config.json').write_text(json.dumps(settings))
  return path


def write_pt(path, source, **more):
  views, stores = torch_files.tensors(source)
  return torch_files.write_zip(
    path, {**more, 'state_dict': views} if more else views, stores
  )


def stored(path):
  return ClipConfig.from_dict(load_config(path)['clip'])


CASES = {
  'openai': ({**SOURCE, **ARCHIVE}, 'openai', PLAIN),
  'bfloat16': (
    {k: v.astype(jax.numpy.bfloat16) for k, v in SOURCE.items()},
    'open_clip',
    dataclasses.replace(PLAIN, activation='gelu'),
  ),
  'ovseg': (draw(openai_shapes(TINY), np.float32), 'ovseg_clip', TINY),
}


@pytest.mark.parametrize('case', CASES)
def test_there_and_back_bit_for_bit(case, tmp_path, capsys):
  source, family, config = CASES[case]
  path, output, back = (
    tmp_path / 'a.safetensors',
    tmp_path / 'o',
    tmp_path / 'b.safetensors',
  )
  save_file(source, path)
  wish = [] if case == 'openai' or case == 'ovseg' else [f'--source={family}']
  assert main([f'--input={path}', f'--output={output}', '--check', *wish]) == 0
  count = len(source) - 3 * (case == 'openai')
  assert f'checked: {count} tensors, ' in capsys.readouterr().out
  assert stored(output) == config
  assert main([f'--export={family}', f'--input={output}', f'--output={back}']) == 0
  equal_bits(load_file(back), source)


def test_the_record_of_the_source(tmp_path):
  path, output = tmp_path / 'a.safetensors', tmp_path / 'o'
  save_file({**SOURCE, **ARCHIVE}, path)
  exchange.convert(path, output)
  record = load_config(output)['source']
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert record['file'] == 'a.safetensors' and record['sha256'] == digest
  assert record['family'] == 'openai'
  assert record['converter_version'] == ovs_jax.__version__
  assert sorted(record['constants']) == sorted(ARCHIVE)
  assert str(tmp_path) not in json.dumps(record)


def test_a_hugging_face_folder_there_and_back(tmp_path):
  folder = write_folder(tmp_path / 'hf', to_hf(SOURCE), hf_settings(PLAIN))
  output, back = tmp_path / 'o', tmp_path / 'back'
  assert main([f'--input={folder}', f'--output={output}', '--check']) == 0
  assert main(['--export=hf_clip', f'--input={output}', f'--output={back}']) == 0
  equal_bits(load_file(back / 'model.safetensors'), to_hf(SOURCE))
  again = tmp_path / 'again'
  assert main([f'--input={back}', f'--output={again}']) == 0
  assert stored(again) == stored(output) == PLAIN
  # The same weights from OpenAI's layout are the same parameters.
  save_file(FULL, tmp_path / 'f.safetensors')
  exchange.convert(tmp_path / 'f.safetensors', tmp_path / 'of', source='openai')
  jax.tree.map(
    np.testing.assert_array_equal, load_model(again)[0], load_model(tmp_path / 'of')[0]
  )


def test_pytorchs_files(tmp_path, capsys):
  source = {f'module.{k}': v for k, v in CASES['ovseg'][0].items()}
  path = write_pt(tmp_path / 'epoch_5.pt', source, epoch=5, name='ViT-B-16')
  assert main([f'--input={path}', f'--output={tmp_path / "o"}', '--check']) == 0
  printed = capsys.readouterr().out
  assert printed.startswith('ovseg_clip: 75 tensors') and 'all equal' in printed
  want = clip.convert(CASES['ovseg'][0])[1]
  jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / 'o')[0], want)


def test_the_clip_of_a_whole_model(tmp_path, capsys):
  source = {f'clip_adapter.clip_model.{k}': v for k, v in CASES['ovseg'][0].items()}
  source['sem_seg_head.predictor.query_embed.weight'] = np.zeros((5, 4), np.float32)
  path = write_pt(tmp_path / 'ovseg.pth', source)
  arguments = [f'--input={path}', f'--output={tmp_path / "o"}', '--check']
  assert main(arguments) == 2
  assert 'not an OVSeg proposer' in capsys.readouterr().err
  assert main([*arguments, '--source=ovseg_clip']) == 0
  assert 'parts of other models, left out: sem_seg_head' in capsys.readouterr().out


def test_names_that_do_not_tell_the_activation(tmp_path, capsys):
  save_file(FULL, tmp_path / 'a.safetensors')
  arguments = [f'--input={tmp_path / "a.safetensors"}', f'--output={tmp_path / "o"}']
  assert main(arguments) == 0
  printed = capsys.readouterr().out
  assert printed.startswith('open_clip: ') and 'run again' in printed
  assert stored(tmp_path / 'o').activation == 'gelu'
  assert main([*arguments, '--activation=quick_gelu', '--overwrite']) == 0
  assert 'run again' not in capsys.readouterr().out
  assert stored(tmp_path / 'o').activation == 'quick_gelu'
  found = {}
  for family in ('openai', 'open_clip', 'ovseg_clip'):
    assert main([*arguments, f'--source={family}', '--overwrite']) == 0
    found[family] = stored(tmp_path / 'o').activation
  assert found == {
    'openai': 'quick_gelu',
    'open_clip': 'gelu',
    'ovseg_clip': 'quick_gelu',
  }
  told = ['--source=open_clip', '--activation=quick_gelu', '--overwrite']
  assert main([*arguments, *told]) == 0
  assert stored(tmp_path / 'o').activation == 'quick_gelu'


def test_unknown_files_are_answered_with_what_is_known(tmp_path, capsys):
  save_file({'layer.weight': np.zeros((2, 2))}, tmp_path / 'a.safetensors')
  arguments = [f'--input={tmp_path / "a.safetensors"}', f'--output={tmp_path / "o"}']
  assert main(arguments) == 2
  error = capsys.readouterr().err
  assert 'no known family has such tensors (1: layer.weight ...)' in error
  for name, family in SOURCES.items():
    assert f'--source={name}: {family.clue}' in error
  assert main([*arguments, '--source=openai']) == 2
  assert 'not a CLIP checkpoint with a vision transformer' in capsys.readouterr().err
  assert main([f'--input={tmp_path / "b.pt"}', f'--output={tmp_path / "o"}']) == 2
  assert 'b.pt does not exist' in capsys.readouterr().err


def test_damage_is_found_by_the_check(tmp_path, capsys):
  path, output = tmp_path / 'a.safetensors', tmp_path / 'o'
  save_file(SOURCE, path)
  exchange.convert(path, output)
  params, model = load_model(output)
  params['visual']['proj'] = params['visual']['proj'] + np.float32(1e-6)
  params['visual']['blocks']['attn']['q']['bias'][1, 0, 0] = 7
  save_model(output, params, model)
  with pytest.raises(ValueError) as error:
    exchange.check(path, output)
  assert '2 of 74 tensors differ' in str(error.value)
  assert 'visual.transformer.resblocks.1.attn.in_proj_bias by up to' in str(error.value)
  save_model(output, params, {**model, 'clip': {**model['clip'], 'end_token': 3}})
  with pytest.raises(ValueError, match="3 of 74 .*configuration 'clip'"):
    exchange.check(path, output)
  save_file(FULL, path)
  with pytest.raises(ValueError, match='was converted from a.safetensors with sha256'):
    exchange.check(path, output)
  save_model(output, params, {'model': 'clip', 'clip': model['clip']})
  with pytest.raises(ValueError, match='was trained here, not converted'):
    exchange.check(path, output)


def test_a_wrecked_tensor_does_not_fit_its_checksum(tmp_path, capsys):
  path, output = tmp_path / 'a.pt', tmp_path / 'o'
  write_pt(path, SOURCE)
  assert main([f'--input={path}', f'--output={output}', '--source=openai']) == 0
  data = bytearray(path.read_bytes())
  table = SOURCE['token_embedding.weight'].tobytes()
  data[data.index(table) + len(table) // 2] ^= 64
  path.write_bytes(data)
  line = [f'--input={path}', f'--output={tmp_path / "p"}', '--source=openai']
  assert main(line) == 2
  assert 'damaged (Bad CRC-32 for file' in capsys.readouterr().err
  assert not (tmp_path / 'p').exists()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite(value, tmp_path, capsys):
  wrong = {name: x.copy() for name, x in FULL.items()}
  wrong['visual.proj'][0, 0] = value
  save_file(wrong, tmp_path / 'a.safetensors')
  line = [f'--input={tmp_path / "a.safetensors"}', f'--output={tmp_path / "o"}']
  assert main(line) == 2
  said = capsys.readouterr().err
  assert 'are NaN or infinite: visual/proj' in said and '1 of ' in said
  assert not (tmp_path / 'o').exists()
  assert main([*line, '--allow_not_finite', '--check']) == 0
  assert 'all equal' in capsys.readouterr().out
  assert not np.isfinite(load_model(tmp_path / 'o')[0]['visual']['proj']).all()


def test_an_output_with_something_in_it_is_left_alone(tmp_path, capsys):
  path, output = tmp_path / 'a.safetensors', tmp_path / 'o'
  save_file(SOURCE, path)
  output.mkdir()
  arguments = [f'--input={path}', f'--output={output}']
  assert main(arguments) == 0  # an empty one is fine
  before = load_config(output)
  assert main([*arguments, '--image_size=16']) == 2
  assert 'exists already; choose another --output= or add --overwrite' in (
    capsys.readouterr().err
  )
  assert load_config(output) == before
  assert main([*arguments, '--image_size=16', '--overwrite', '--check']) == 0
  assert stored(output).image_size == 16
  back = tmp_path / 'b.safetensors'
  export = ['--export=openai', f'--input={output}', f'--output={back}']
  assert main(export) == 0
  assert load_file(back)['visual.positional_embedding'].shape == (17, 128)
  assert main(export) == 2 and main([*export, '--overwrite']) == 0
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'a.safetensors',
    'b.safetensors',
    'o',
  ]


def test_trained_weights_leave_in_full(tmp_path):
  path, output, back = (
    tmp_path / 'a.safetensors',
    tmp_path / 'o',
    tmp_path / 'b.safetensors',
  )
  save_file(SOURCE, path)
  exchange.convert(path, output)
  params, model = load_model(output)
  params['visual']['proj'] = params['visual']['proj'] + np.float32(1e-6)
  save_model(output, params, model)
  exchange.export(output, back, layout='openai')
  tensors = load_file(back)
  np.testing.assert_array_equal(tensors['visual.proj'], params['visual']['proj'])
  assert tensors['visual.proj'].dtype == np.float32
  assert tensors['text_projection'].dtype == np.float16


def test_exports_that_cannot_be(tmp_path, capsys):
  path, output = tmp_path / 'a.safetensors', tmp_path / 'o'
  save_file(CASES['ovseg'][0], path)
  exchange.convert(path, output)
  export = [f'--input={output}', f'--output={tmp_path / "b.safetensors"}']
  assert main(['--export=hf_clip', *export]) == 2
  assert 'mask prompts of depth 2' in capsys.readouterr().err
  assert (
    main(['--export=ovseg_clip', f'--input={output}', f'--output={output}.bin']) == 2
  )
  assert 'must end in .safetensors' in capsys.readouterr().err
  assert main(['--export=ovseg_clip', f'--input={path}', *export[1:]]) == 2
  assert 'a.safetensors not found' in capsys.readouterr().err


def test_list_and_help(capsys):
  assert main(['--list']) == 0
  printed = capsys.readouterr().out
  for name, item in catalogue.PUBLISHED.items():
    assert f'{name}\n  family   {item.family}\n  licence  {item.licence}\n' in printed
  assert printed.count('not published') == len(catalogue.PUBLISHED) - 4
  with pytest.raises(SystemExit) as stop:
    main([])
  assert stop.value.code == 2
  done = subprocess.run(
    [sys.executable, '-m', 'ovs_jax.convert', '--help'], capture_output=True, text=True
  )
  assert done.returncode == 0 and 'open_clip: gelu unless' in done.stdout


def test_download_and_convert(tmp_path, monkeypatch, capsys):
  save_file({**SOURCE, **ARCHIVE}, tmp_path / 'ViT-T.pt')
  data = (tmp_path / 'ViT-T.pt').read_bytes()

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      self.send_response(200)
      self.end_headers()
      self.wfile.write(data)

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  place = f'http://127.0.0.1:{server.server_port}/ViT-T.pt'
  digest = hashlib.sha256(data).hexdigest()
  item = catalogue.Published('openai', 'MIT', place, digest, 'ViT-T.pt')
  monkeypatch.setitem(catalogue.PUBLISHED, 'ViT-T', item)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('no_proxy', '*')
  assert main(['--download=ViT-T', f'--output={tmp_path / "o"}', '--check']) == 0
  cached = tmp_path / 'cache' / 'ovs_jax' / 'downloads' / 'ViT-T.pt'
  assert cached.read_bytes() == data
  server.shutdown()
  server.server_close()
  assert main(['--download=ViT-T']) == 0  # from the cache
  assert capsys.readouterr().out.endswith(f'{cached} (licence: MIT)\n')
  assert stored(tmp_path / 'o') == PLAIN
  assert main(['--download=ViT-X']) == 2
  assert "Did you mean 'ViT-T'?" in capsys.readouterr().err


def test_ctrl_c(monkeypatch, capsys):
  def stop(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(command, 'fetch', stop)
  assert main(['--download=ViT-B/16']) == 130
  assert 'run the same command again' in capsys.readouterr().err


def test_the_settings_beside_an_open_clip_file(tmp_path, capsys):
  folder = tmp_path / 'hub'
  folder.mkdir()
  save_file(FULL, folder / 'open_clip_model.safetensors')
  (folder / 'config.json').write_text('{"model_type": "clip"}')  # of other weights
  settings = {
    'model_cfg': {
      'quick_gelu': True,
      'vision_cfg': {'head_width': PLAIN.vision_width // 4},
      'text_cfg': {'heads': 4},
    },
    'preprocess_cfg': {'mean': [0.48145466, 0.4578275, 0.40821073]},
  }
  beside = folder / 'open_clip_config.json'
  beside.write_text(json.dumps(settings))
  path = folder / 'open_clip_model.safetensors'
  assert main([f'--input={path}', f'--output={tmp_path / "o"}', '--check']) == 0
  printed = capsys.readouterr().out
  assert printed.startswith('open_clip: ') and 'run again' not in printed
  config = stored(tmp_path / 'o')
  assert config.activation == 'quick_gelu'
  assert (config.vision_heads, config.text_heads) == (4, 4)
  settings['preprocess_cfg']['mean'] = [0.5, 0.5]
  settings['model_cfg']['text_cfg']['hf_model_name'] = 'roberta-base'
  beside.write_text(json.dumps(settings))
  assert main([f'--input={folder}', f'--output={tmp_path / "p"}']) == 2
  error = capsys.readouterr().err
  assert "text hf_model_name 'roberta-base'" in error and 'pixels of mean' in error
