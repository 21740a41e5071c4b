"""Addresses in every place where a path can be given: served, or refused in a line."""

import ast
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from configs import common
from ovs_jax import main, predict
from ovs_jax.bench import __main__ as bench
from ovs_jax.convert import command as convert
from ovs_jax.data import prepare
from ovs_jax.mining import train_tagger
from ovs_jax.settings import Settings
from ovs_jax.text import cache

PACKAGE = pathlib.Path(main.__file__).parent
# Addresses can be served there, of some kinds.
SERVED = {
  'predict --checkpoint': lambda a: predict_with(f'--checkpoint={a}'),
  'predict --names-file': lambda a: predict_with(f'--names-file={a}', names=None),
  'predict --output': lambda a: predict_with(f'--output={a}'),
  'convert --input': lambda a: convert.main([f'--input={a}', '--output=out']),
  'convert --output': lambda a: convert.main(['--input=x.pt', f'--output={a}']),
  'export --input': lambda a: convert.main(
    ['--export=openai', f'--input={a}', '--output=out.safetensors']
  ),
  'export --output': lambda a: convert.main(
    ['--export=openai', '--input=in', f'--output={a}/x.safetensors']
  ),
  'prepare --data_dir': lambda a: prepare.main(
    ['--dataset=voc_20', '--source=.', f'--data_dir={a}']
  ),
  'bench --output': lambda a: bench.main(['--workload=fusion', f'--output={a}']),
  'config.init.clip': lambda a: run('train', 'init', 'clip', a),
  'config.init.prompts': lambda a: run('assemble', 'init', 'prompts', a),
  'config.eval.checkpoint': lambda a: run('evaluate', 'eval', 'checkpoint', a),
  'config.mining.caption_file': lambda a: run('mine', 'mining', 'caption_file', a),
  'config.dataset.data_dir': lambda a: run('prepare', 'dataset', 'data_dir', a),
}
# Only files of this machine can be served there.
LOCAL = {
  'predict --image': lambda a: predict_with(f'--image={a}'),
  'predict --masks': lambda a: predict_with(f'--masks={a}'),
  'predict --text-cache': cache.cache_root,
  'prepare --source': lambda a: prepare.main(['--dataset=voc_20', f'--source={a}']),
  'train_tagger --output': lambda a: train_tagger.main(['--train=x', f'--output={a}']),
  'train_tagger --train': lambda a: train_tagger.main([f'--train={a}', '--output=o']),
  'config.dataset.variant': lambda a: run('prepare', 'dataset', 'variant', a),
  'config.phrases.table': lambda a: run('train', 'phrases', 'table', a),
  'config.slots.cache': lambda a: run('train', 'slots', 'cache', a),
  'config.suite.predictions': lambda a: run('benchmark', 'suite', 'predictions', a),
}


def predict_with(flag: str, names: str | None = 'a') -> int:
  given = {'--checkpoint': 'nowhere', '--image': 'photo.png'}
  given.update([flag.split('=', 1)])
  if names is not None:
    given['--names'] = names
  return predict.main([f'{name}={value}' for name, value in given.items()])


def run(mode: str, section: str, key: str, value: str) -> Any:
  config = common.base('test', mode)
  config[section][key] = value
  return main.run(mode, Settings.of(config), pathlib.Path('runs'))


def said(call: Callable[[str], Any], address: str, capsys: Any) -> str:
  """Returns the one line that a command ends with."""
  try:
    status = call(address)
  except ValueError as error:
    return str(error)
  assert status == 2
  return capsys.readouterr().err


@pytest.mark.parametrize(
  ('name', 'address'),
  [
    *((name, 's4://bucket/a') for name in SERVED),
    *((name, 'gs://bucket/a') for name in LOCAL),
  ],
)
def test_what_cannot_be_served_is_refused_in_a_line(
  name: str,
  address: str,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
) -> None:
  monkeypatch.chdir(tmp_path)
  Image.new('RGB', (8, 8)).save('photo.png')
  line = said((SERVED | LOCAL)[name], address, capsys)
  assert f'{address}' in line and ': only ' in line, line
  assert line.strip().count('\n') == 0
  assert [path.name for path in tmp_path.rglob('*')] == ['photo.png']


def test_all_paths_are_made_in_one_file() -> None:
  """Or an address would become a folder called gs: somewhere."""
  found = []
  for path in PACKAGE.rglob('*.py'):
    # The last runs without this package.
    own = ('core/files.py', 'core/buckets.py', 'export/run.py')
    if str(path.relative_to(PACKAGE)) in own:
      continue
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Call):
        call = ast.unparse(node)
        if call.startswith(('pathlib.Path(', 'Path(', 'epath.Path(')):
          found.append(f'{path.relative_to(PACKAGE)}:{node.lineno} {call}')
        elif call.endswith('.expanduser()') or call.startswith('os.path.expanduser('):
          found.append(f'{path.relative_to(PACKAGE)}:{node.lineno} {call}')
  assert [x for x in found if not x.endswith('pathlib.Path(__file__)')] == []
