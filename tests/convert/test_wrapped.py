"""Models within wrappers, one of several, and shapes that some programs store."""

import jax
import numpy as np
import pytest
import torch_files
from safetensors.numpy import save_file
from test_command import SOURCE

from ovs_jax.convert.command import main
from ovs_jax.core.checkpoint import load_model


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'model._orig_mod.', 'ema.'])
def test_words_before_all_names(prefix, tmp_path, capsys):
  wrapped = {f'{prefix}{name}': x for name, x in SOURCE.items()}
  save_file(SOURCE, tmp_path / 'a.safetensors')
  save_file(wrapped, tmp_path / 'b.safetensors')
  for name in 'ab':
    line = [f'--input={tmp_path / name}.safetensors', f'--output={tmp_path / name}']
    assert main([*line, '--source=openai', '--check']) == 0
  said = capsys.readouterr().out
  assert said.count('all equal') == 2
  assert said.count(f'every name begins with {prefix}, which is left out') == 1
  a, b = (load_model(tmp_path / name)[0] for name in 'ab')
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_other_words_stay(tmp_path, capsys):
  save_file({f'visual.{k}': x for k, x in SOURCE.items()}, tmp_path / 'a.safetensors')
  line = [f'--input={tmp_path / "a.safetensors"}', f'--output={tmp_path / "a"}']
  assert main(line) == 2
  assert 'no known family has such tensors' in capsys.readouterr().err


def test_one_of_several_models(tmp_path, capsys):
  other = {name: x + np.ones((), x.dtype) for name, x in SOURCE.items()}
  both = {'a': SOURCE, 'b': other}
  views, stores = torch_files.tensors(
    {f'{n}{k}': both[n][k] for n in both for k in other}
  )
  root = {
    'model': {k: views[f'a{k}'] for k in other},
    'ema': {'state_dict': {k: views[f'b{k}'] for k in other}},
  }
  path = torch_files.write_zip(tmp_path / 'a.pt', root, stores)
  for key, source in (('model', SOURCE), ('ema.state_dict', other)):
    line = [f'--input={path}', f'--output={tmp_path / key}', f'--key={key}', '--check']
    assert main([*line, '--source=openai']) == 0
    kernel = load_model(tmp_path / key)[0]['visual']['proj']
    np.testing.assert_array_equal(kernel, source['visual.proj'])
  assert main([f'--input={path}', f'--output={tmp_path / "x"}', '--key=emma']) == 2
  assert "has no entry 'emma'; there are model, ema" in capsys.readouterr().err


def test_a_scale_that_is_a_vector_of_one(tmp_path):
  vector = {**SOURCE, 'logit_scale': SOURCE['logit_scale'].reshape(1)}
  save_file(vector, tmp_path / 'a.safetensors')
  line = [f'--input={tmp_path / "a.safetensors"}', f'--output={tmp_path / "a"}']
  assert main([*line, '--source=openai', '--check']) == 0
  assert load_model(tmp_path / 'a')[0]['logit_scale'].shape == ()
