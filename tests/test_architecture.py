"""The layers of the package, and the size of its files and functions."""

import ast
import collections
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'ovs_jax'
FILES = sorted(PACKAGE.rglob('*.py'))
CODE = FILES + sorted((ROOT / 'configs').glob('*.py'))
LAYERS = {
  'core': 0,
  'ops': 1,
  'text': 1,
  'models': 2,
  'formats': 2,
  'settings': 3,
  'data': 4,
  'convert': 5,
  'inference': 6,
  'evaluate': 7,
  'mining': 7,
  'train': 8,
  'integrations': 9,
  'export': 9,
}
TOP = {
  *('README.md', 'CONVENTIONS.md', 'LICENSE', 'pyproject.toml', 'setup.py'),
  *('requirements.txt', 'requirements', 'ovs_jax', 'configs', 'launch', 'tests'),
  *('docs', 'examples', '.ci', '.gitignore', '.gitattributes', '.github'),
}
# Heavy packages and where they may be imported.
CONFINED = {
  'tensorflow': ('data/', 'export/savedmodel.py', 'export/run_tf.py'),
  'tensorflow_datasets': ('data/',),
  'spacy': ('mining/nouns.py', 'mining/train_tagger.py'),
  'orbax': ('core/checkpoint.py', 'core/run_checkpoints.py'),
  'flax': ('models/', 'train/state.py', 'integrations/'),
  'torch': (),
  'gradio': ('demo/',),
  'scenic': ('integrations/',),
}


def imports(path: pathlib.Path) -> list[str]:
  """Returns the dotted names that a file imports, wherever in it."""
  names = []
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  return names


def layer(dotted: str) -> tuple[str, int]:
  """Returns the package and layer of an ovs_jax module; commands are on top."""
  parts = dotted.split('.')
  package = parts[1] if len(parts) > 1 else ''
  return package, LAYERS.get(package, 9)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: pathlib.Path) -> None:
  own = 'ovs_jax.' + str(path.relative_to(PACKAGE)).replace('/', '.')
  package, height = layer(own)
  for name in imports(path):
    if name.startswith('ovs_jax.'):
      other, below = layer(name)
      assert below < height or other == package or height == 9, (
        f'{own} (layer {height}) imports {name} (layer {below})'
      )


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_confined(path: pathlib.Path) -> None:
  place = str(path.relative_to(PACKAGE))
  for name in imports(path):
    allowed = CONFINED.get(name.split('.')[0])
    assert allowed is None or place.startswith(allowed), f'{place} imports {name}'


@pytest.mark.parametrize(
  'module',
  ['ovs_jax', 'ovs_jax.main', 'ovs_jax.predict', 'ovs_jax.inference.segmenter'],
)
def test_light_imports_leave_heavy_packages_alone(module: str) -> None:
  code = (
    f'import {module}, sys; '
    'print([m for m in ("tensorflow", "spacy", "torch", "matplotlib") '
    'if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'


def test_files_and_functions_stay_small() -> None:
  too_long = []
  for path in (
    *CODE,
    *(ROOT / 'tests').rglob('*.py'),
    *(ROOT / 'configs').glob('*.py'),
  ):
    text = path.read_text(encoding='utf-8')
    if text.count('\n') > 400:
      too_long.append(f'{path.name}: {text.count(chr(10))} lines')
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > 60:
          too_long.append(f'{path.name}:{node.name}: {length} lines')
  assert too_long == []


def test_functions_are_annotated_and_public_ones_documented() -> None:
  missing, undocumented = [], []
  for path in CODE:
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.FunctionDef):
        if node.returns is None and node.name not in ('__init__', '__post_init__'):
          missing.append(f'{path.name}:{node.name}')
    for node in public_functions(path):
      if ast.get_docstring(node) is None:
        undocumented.append(f'{path.name}:{node.name}')
  assert missing == []
  assert undocumented == []


def public_functions(path: pathlib.Path) -> list[ast.FunctionDef]:
  """Returns functions and methods of modules and classes that are not private."""
  found = []
  tree = ast.parse(path.read_text(encoding='utf-8'))
  for node in [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]:
    for child in node.body:
      if isinstance(child, ast.FunctionDef) and not child.name.startswith('_'):
        found.append(child)
  return found


def test_every_table_names_what_exists() -> None:
  from ovs_jax.data import DATASETS
  from ovs_jax.main import MODES
  from ovs_jax.text import vocabulary
  from ovs_jax.train.recipes import RECIPES

  assert set(RECIPES) == {
    'clip_pretrain',
    'clip_regions',
    'clipseg',
    'coseg',
    'proposer',
  }
  assert {'train', 'evaluate', 'mine', 'pipeline'} <= set(MODES)
  for target in MODES.values():
    module, _, function = target.partition(':')
    assert callable(getattr(importlib.import_module(module), function)), target
  for name, dataset in DATASETS.items():
    if name != 'folder':  # brings its own class list
      assert len(vocabulary.load(dataset.vocabulary)) > 0


def test_no_two_files_of_tests_have_one_name() -> None:
  names = collections.Counter(path.name for path in ROOT.glob('tests/**/test_*.py'))
  assert [name for name, count in names.items() if count > 1] == []


def test_nothing_else_is_at_the_top() -> None:
  """No data, and no run's results: what a test or a command left is not committed."""
  listed = subprocess.run(
    ['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=False
  )
  names = {line.partition('/')[0] for line in listed.stdout.splitlines()}
  assert names <= TOP, 'commit no results, or add what belongs there to TOP'
