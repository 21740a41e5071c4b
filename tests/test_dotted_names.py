"""Dotted names in backticks, in docstrings, comments and pages: they exist.

`ops.merging`, `ClipVision.features` and `train.ema` are looked for among the modules,
classes and configuration keys of the package, by reading, not by importing.
"""

import ast
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator
from typing import Any

import pytest

from configs import common

ROOT = pathlib.Path(__file__).parents[1]
FILES = [p for d in ('ovs_jax', 'configs') for p in sorted((ROOT / d).rglob('*.py'))]
PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]
NAME = re.compile(r'`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?`')
ENDINGS = ('.py', '.md', '.txt', '.json', '.jsonl', '.npz', '.csv', '.png', '.pkl')
ENDINGS += (
  '.yaml',
  '.xml',
  '.sh',
  '.part',
  '.pt',
  '.pth',
  '.bin',
  '.safetensors',
  '.npy',
  '.stablehlo',
  '.onnx',
  '.html',
  '.css',
  '.js',
)
# First parts of names that belong to others: packages, configurations, tensors.
FOREIGN = {'config', 'dataset_configs', 'scenic', 'etils', 'jax', 'np', 'optax'}
FOREIGN |= {'spacy', 'tf', 'torch', 'visual', 'NAME'}


def dotted(path: pathlib.Path) -> str:
  """Returns the name by which a file is imported."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


TREES = {dotted(path): ast.parse(path.read_text(encoding='utf-8')) for path in FILES}
Nodes = dict[str, ast.stmt]


def bound(body: list[ast.stmt]) -> Nodes:
  """Returns the names that statements bind, each with its statement."""
  found: Nodes = {}
  for node in body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      found[node.name] = node
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      names = [x for target in targets for x in ast.walk(target)]
      found |= {x.id: node for x in names if isinstance(x, ast.Name)}
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
      found |= {x.asname or x.name.split('.')[0]: node for x in node.names}
    elif isinstance(node, (ast.If, ast.Try)):
      found |= bound(node.body)
  return found


KEYS = common.base('names', 'train')
NAMES = {module: bound(tree.body) for module, tree in TREES.items()}
ARGUMENTS = {
  module: {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
  for module, tree in TREES.items()
}
CLASSES: dict[str, list[ast.ClassDef]] = {}
for _names in NAMES.values():
  for _name, _node in _names.items():
    if isinstance(_node, ast.ClassDef):
      CLASSES.setdefault(_name, []).append(_node)


def has_member(node: ast.ClassDef, name: str) -> bool:
  """Whether a class, or one of ours that it is made from, has an attribute."""
  own = set(bound(node.body))
  for x in ast.walk(node):
    if isinstance(x, ast.Attribute) and isinstance(x.value, ast.Name):
      own |= {x.attr} if x.value.id == 'self' else set()
  parents = [x.id for x in node.bases if isinstance(x, ast.Name)]
  return name in own or any(
    has_member(parent, name) for x in parents for parent in CLASSES.get(x, [])
  )


def in_module(module: str, parts: list[str]) -> bool:
  """Whether a module has what the parts name, one inside the other."""
  if not parts:
    return True
  first, *rest = parts
  if f'{module}.{first}' in TREES:
    return in_module(f'{module}.{first}', rest)
  node = NAMES[module].get(first)
  if isinstance(node, ast.ClassDef):
    return not rest or has_member(node, rest[0])
  if isinstance(node, ast.ImportFrom) and node.module in TREES:
    real = next(x.name for x in node.names if first in (x.name, x.asname))
    return in_module(node.module, [real, *rest])
  if isinstance(node, ast.ImportFrom):
    return not (node.module or '').startswith(('ovs_jax', 'configs'))
  return node is not None and not (rest and isinstance(node, ast.FunctionDef))


def has_key(config: Any, parts: list[str]) -> bool:
  """Whether a configuration has a key."""
  for part in parts:
    if not hasattr(config, 'keys') or part not in config:
      return False
    config = config[part]
  return True


def exists(name: str, here: str = '') -> bool:
  """Whether a dotted name is one of a module, a class or a configuration.

  Args:
    name: such as `ops.merging` or `Clip.encode_text`.
    here: the module that it is written in, whose own names and arguments count, too.
  """
  first, *rest = parts = name.split('.')
  modules = [x for x in TREES if x == first or x.endswith(f'.{first}')]
  return (
    first in FOREIGN
    or name.endswith(ENDINGS)
    or any(in_module(module, rest) for module in modules)
    or (here != '' and (first in ARGUMENTS[here] or in_module(here, parts)))
    or any(has_member(node, rest[0]) for node in CLASSES.get(first, []))
    or has_key(KEYS, parts)
  )


def prose(module: str, text: str) -> Iterator[tuple[int, str]]:
  """Yields docstrings and comments of a file, with their lines."""
  for node in ast.walk(TREES[module]):
    if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
      if ast.get_docstring(node) is not None:
        yield node.body[0].lineno, node.body[0].value.value
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      yield token.start[0], token.string


def test_names_in_docstrings_and_comments_exist() -> None:
  missing = []
  for path in FILES:
    module = dotted(path)
    for line, text in prose(module, path.read_text(encoding='utf-8')):
      for match in NAME.finditer(text):
        if not exists(match[1], module):
          at = line + text[: match.start()].count('\n')
          missing.append(f'{path.relative_to(ROOT)}:{at}: {match[1]}')
  assert missing == []


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_names_in_pages_exist(page: pathlib.Path) -> None:
  prose = re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.DOTALL)
  assert [x for x in NAME.findall(prose) if not exists(x)] == []


@pytest.mark.parametrize(
  ('name', 'there'),
  [
    ('ops.merging', True),
    ('ops.merging.marginalise', True),
    ('merging.nothing', False),
    ('models.systems.load_system', False),
    ('Clip.encode_text', True),
    ('Clip.encode_sound', False),
    ('MaskChunk.logits', True),
    ('train.ema', True),
    ('train.emu', False),
    ('encoding.MODES', False),
  ],
)
def test_a_name_is_told_from_one_that_is_not_there(name: str, there: bool) -> None:
  assert exists(name) is there
