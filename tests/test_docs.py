"""The pages: short lines, and commands, options, keys, paths and links that exist."""

import ast
import fnmatch
import functools
import importlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from configs import common
from ovs_jax.bench import WORKLOADS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  ROOT / 'README.md',
  ROOT / 'CONVENTIONS.md',
  *sorted((ROOT / 'docs').glob('*.md')),
  ROOT / 'launch' / 'README.md',
]
each_page = pytest.mark.parametrize(
  'page', PAGES, ids=lambda p: str(p.relative_to(ROOT))
)
LONGEST_LINE = 100
LONGEST_README = 150
FOLDERS = ('configs', 'docs', 'examples', 'launch', 'ovs_jax', 'requirements', 'tests')
FILES = [
  str(p.relative_to(ROOT))
  for p in [*ROOT.iterdir(), *(p for d in FOLDERS for p in (ROOT / d).rglob('*'))]
  if '__pycache__' not in p.parts
]
# Commands of a page that are ours, and the files that define their options.
COMMANDS = {
  'launch/run.sh': ('ovs_jax/main.py', 'launch/*.sh'),
  'launch/local_processes.sh': ('ovs_jax/main.py', 'launch/*.sh'),
  'launch/gpu_node.sh': ('ovs_jax/main.py', 'launch/*.sh'),
  'launch/tpu_pod.sh': ('ovs_jax/main.py', 'launch/tpu_pod.sh'),
  'ovs_jax prepare': ('ovs_jax/data/prepare.py',),
  'ovs_jax adapt': ('ovs_jax/adapt/__main__.py',),
  'ovs_jax export': ('ovs_jax/export/__main__.py',),
  'ovs_jax evaluate': ('ovs_jax/adapt/evaluate.py',),
  'ovs_jax assemble': ('ovs_jax/adapt/assemble.py',),
  'ovs_jax train': ('ovs_jax/main.py',),
  'ovs_jax predict': ('ovs_jax/*.py', 'ovs_jax/inference/*.py'),
  'ovs_jax.main': ('ovs_jax/main.py',),
  'ovs_jax.predict': ('ovs_jax/*.py', 'ovs_jax/inference/*.py'),
  'ovs_jax.explain': ('ovs_jax/explain.py',),
  'ovs_jax.demo': ('ovs_jax/demo/__main__.py',),
  'ovs_jax.bench': ('ovs_jax/bench/__main__.py',),
  'ovs_jax.bench.scaling': ('ovs_jax/bench/scaling.py',),
  'ovs_jax.bench.rehearsal': ('ovs_jax/bench/rehearsal.py',),
  'ovs_jax.convert': ('ovs_jax/convert/*.py',),
  'ovs_jax.data.prepare': ('ovs_jax/data/prepare.py',),
  'ovs_jax.mining.quality': ('ovs_jax/mining/quality.py',),
  'ovs_jax.evaluate.check_docs': ('ovs_jax/evaluate/check_docs.py',),
  'ovs_jax.mining.train_tagger': ('ovs_jax/mining/train_tagger.py',),
  'tests/parity.py': ('tests/parity*.py', 'tests/parity/*.py'),
  'tests/against_torch': ('tests/*torch*.py', 'tests/*/*torch*.py'),
}
# Options of Slurm, pip and pytest, and of everything.
OTHERS = {'--exclusive', '--gpus-per-node', '--nodes', '--signal', '--time'}
OTHERS |= {'--no-deps', '--help'}
# What pages name although it does not exist.
EXAMPLES = {'utils.py', 'runs/mine/adapt.py', 'key', 'x.y', 'stages.STAGE.key', 'json'}
PLACEHOLDER = re.compile(r'\b[A-Z]{3,}\b(?!\.md)')
FLAGS = {'DEFINE_string', 'DEFINE_bool', 'DEFINE_config_file', 'DEFINE_integer'}


class Line(NamedTuple):
  """A line of a page.

  Attributes:
    place: page and number.
    text: all of it.
    code: whether it is in a block of code.
  """

  place: str
  text: str
  code: bool


def lines(page: pathlib.Path) -> Iterator[Line]:
  """Yields the lines of a page; blocks are fenced, or indented after an empty line."""
  fenced = indented = False
  before = ''
  for number, text in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
    fence = text.startswith('```')
    deep = text.startswith('    ')
    indented = deep and (indented or not before) or (indented and not text)
    yield Line(f'{page.name}:{number}', text, fenced or fence or indented)
    fenced ^= fence
    before = text


def spans(page: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields the lines of code of a page and what is in backticks, with their places."""
  for line in lines(page):
    if line.code:
      yield line.place, line.text
    else:
      for span in re.findall(r'`([^`]+)`', line.text):
        yield line.place, span


def commands(page: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields what is typed into a shell, continued lines joined, and remarks left out."""
  started = ''
  for place, text in spans(page):
    text = started + re.sub(r'\s# .*', '', text)
    started = text[:-1] if text.endswith('\\') else ''
    if not started:
      yield place, text


@functools.cache
def defined_options(patterns: tuple[str, ...]) -> set[str]:
  """Returns the options that the files of some patterns define."""
  found = set()
  for path in (p for pattern in patterns for p in ROOT.glob(pattern)):
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.sh':
      found |= set(re.findall(r'--[a-z][\w-]*', text))
      continue
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        found |= {node.value} if node.value.startswith('--') else set()
      elif isinstance(node, ast.Call) and getattr(node.func, 'attr', '') in FLAGS:
        found.add(f'--{ast.literal_eval(node.args[0])}')
  return found


@functools.cache
def load(name: str, argument: str) -> Any:
  """Returns a configuration, without a name that with every key."""
  if not name:
    return common.base('docs', 'train')
  return importlib.import_module(f'configs.{name}').get_config(argument)


def has_key(config: Any, path: str) -> bool:
  """Whether a configuration has a key; parts in capitals stand for any name."""
  for part in path.split('.'):
    if part.isupper():
      return True
    if part not in config:
      return False
    config = config[part]
  return True


def command_of(text: str) -> str:
  """Returns which of `COMMANDS` a text starts, '' if none."""
  named = [name for name in COMMANDS if re.search(rf'{re.escape(name)}(?!\.\w)', text)]
  return max(named, key=len, default='')


@each_page
def test_prose_has_short_lines(page: pathlib.Path) -> None:
  long = [
    f'{line.place} has {len(line.text)} characters'
    for line in lines(page)
    if len(line.text) > LONGEST_LINE
    and not line.code
    and not line.text.startswith(('|', '#', '['))
  ]
  assert long == []


@each_page
def test_code_in_prose_ends_on_its_line(page: pathlib.Path) -> None:
  """Broken over lines it cannot be searched for, nor checked below."""
  odd = [x.place for x in lines(page) if not x.code and x.text.count('`') % 2]
  assert odd == []


def test_readme_is_short() -> None:
  count = len((ROOT / 'README.md').read_text(encoding='utf-8').splitlines())
  assert count <= LONGEST_README


@each_page
def test_links_lead_somewhere(page: pathlib.Path) -> None:
  links = re.findall(r'\]\(([^)\s]+)\)', page.read_text(encoding='utf-8'))
  local = [link.split('#')[0] or page.name for link in links if '://' not in link]
  assert [link for link in local if not (page.parent / link).exists()] == []


@functools.cache
def exists(path: str) -> bool:
  """Whether a path, or the end of one, is that of a file or folder; `*` is any."""
  return bool(fnmatch.filter(FILES, path) or fnmatch.filter(FILES, '*/' + path))


@each_page
def test_paths_exist(page: pathlib.Path) -> None:
  missing = []
  for place, text in spans(page):
    for path in re.findall(r'(?<![\w./{}*-])[\w*][\w./*-]*[\w*]', text):
      ours = '/' in path and path.split('/')[0] in FOLDERS
      code = path.endswith(('.py', '.sh', '.tsv'))
      if (ours or code) and not (PLACEHOLDER.search(path) or path in EXAMPLES):
        missing += [] if exists(path) else [f'{place}: {path}']
  assert missing == []


@each_page
def test_commands_and_their_options_exist(page: pathlib.Path) -> None:
  wrong = []
  everywhere = OTHERS.union(*map(defined_options, COMMANDS.values()))
  for place, text in commands(page):
    for module in re.findall(r'-m (ovs_jax[\w.]*\w)', text):
      path = ROOT.joinpath(*module.split('.'))
      if not (path.with_suffix('.py').exists() or (path / '__main__.py').exists()):
        wrong.append(f'{place}: {module} cannot be run')
    command = command_of(text)
    known = defined_options(COMMANDS[command]) | OTHERS if command else everywhere
    for option in re.findall(r'(?<![\w-])--[a-z][\w-]*', text):
      if option not in known:
        wrong.append(f'{place}: {command or "no command"} has {option}')
    for workload in re.findall(r'--workload=(\w+)', text):
      if workload not in WORKLOADS:
        wrong.append(f'{place}: there is no workload {workload}')
  assert wrong == []


@each_page
def test_configurations_have_the_keys(page: pathlib.Path) -> None:
  wrong = []
  for place, text in commands(page):
    name, argument = '', ''
    if named := re.search(r'--config=configs/([a-z]\w*)\.py(?::([\w:,]+))?', text):
      name, argument = named[1], named[2] or ''
    for key in re.findall(r'(?<![\w./])config\.([A-Za-z_][\w.]*\w)', text):
      if key not in EXAMPLES and not has_key(load(name, argument), key):
        wrong.append(f'{place}: {key} is no key of {name or "any configuration"}')
  assert wrong == []
