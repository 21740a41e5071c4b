"""docs/tutorial.md: its blocks run in order, and what it says of them is true."""

import contextlib
import io
import itertools
import os
import pathlib
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from reuse import Reuse, stage_key

from ovs_jax import main
from ovs_jax.bench import drawn
from ovs_jax.settings import Settings
from ovs_jax.train.pipeline import run_pipeline

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'tutorial.md'
MOST_LINES = 20
_PROMISED = re.compile(r'^ *print\(.*\)  # (.+)$', re.MULTILINE)


class Block(NamedTuple):
  """Some code of the page, the section it is in, and the line it starts at."""

  section: int
  title: str
  line: int
  code: str

  def __str__(self) -> str:
    return f'the block at {PAGE.name}:{self.line} ("{self.title}")'


def read_blocks(text: str) -> list[Block]:
  """Returns the Python of a page whose sections are numbered."""
  blocks: list[Block] = []
  section, title, start = 0, '', None
  lines = text.splitlines()
  for number, line in enumerate(lines, 1):
    if heading := re.match(r'## (\d+)\. (.+)', line):
      section, title = int(heading[1]), heading[2]
    elif line == '```python':
      start = number
    elif line == '```' and start is not None:
      code = '\n'.join(lines[start : number - 1])
      blocks.append(Block(section, title, start + 1, code))
      start = None
  return blocks


BLOCKS = read_blocks(PAGE.read_text(encoding='utf-8'))


class Tutorial:
  """One reader: blocks share a namespace, and run when they are first needed."""

  def __init__(self, directory: pathlib.Path) -> None:
    self.directory = directory
    self._names: dict[str, object] = {'__name__': 'tutorial'}
    self._after: dict[int, dict[str, object]] = {}  # sections
    self._left = list(BLOCKS)
    self._failed = ''

  def read(self, section: int) -> types.SimpleNamespace:
    """Runs what is left up to the end of a section; returns its names at that point."""
    while self._left and self._left[0].section <= section:
      if self._failed:
        pytest.fail(f'not reached: {self._failed}')
      block = self._left[0]
      try:
        self._run(block)
      except Exception as error:
        self._failed = f'{block} failed: {type(error).__name__}: {error}'
        raise AssertionError(self._failed) from error
      self._left.pop(0)
      self._after[block.section] = dict(self._names)
    return types.SimpleNamespace(**self._after[section])

  def _run(self, block: Block) -> None:
    """Runs a block; tracebacks show the lines of the page."""
    code = compile('\n' * (block.line - 1) + block.code, str(PAGE), 'exec')
    printed = io.StringIO()
    with contextlib.chdir(self.directory), contextlib.redirect_stdout(printed):
      exec(code, self._names)
    lines = printed.getvalue().splitlines()
    for promise in _PROMISED.findall(block.code):
      found = any(line.startswith(promise) for line in lines)
      assert found, f'{promise!r} is not what it prints, which is {lines}'


@pytest.fixture(scope='module')
def asked() -> set[str]:
  """Returns the keys of the stages that the page has run."""
  return set()


@pytest.fixture(scope='module')
def tutorial(
  tmp_path_factory: pytest.TempPathFactory,
  data_dir: str,
  reuse: Reuse,
  asked: set[str],
) -> Iterator[Tutorial]:
  """Returns a reader in an empty directory, who has the data but no other files."""
  home = tmp_path_factory.mktemp('home')
  (home / '.cache' / 'ovs_jax').mkdir(parents=True)
  (home / '.cache' / 'ovs_jax' / 'data').symlink_to(data_dir)

  def run(mode: str, stage: Any, workdir: pathlib.Path) -> dict[str, Any]:
    asked.add(stage_key(stage, workdir))
    return reuse(mode, stage, workdir)

  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HOME', str(home))
    patch.setattr(main, 'run', run)
    yield Tutorial(tmp_path_factory.mktemp('reader'))


def test_blocks_are_short_and_sections_in_order() -> None:
  assert len(BLOCKS) >= 10
  for block in BLOCKS:
    count = len(block.code.splitlines())
    assert 0 < count <= MOST_LINES, f'{block} has {count} lines'
  sections = [block.section for block in BLOCKS]
  assert sections == sorted(sections)
  assert set(sections) == set(range(1, sections[-1] + 1))


def test_a_failure_names_its_block(tmp_path: pathlib.Path) -> None:
  reader = Tutorial(tmp_path)
  reader._left = [
    Block(1, 'First', 7, 'x = 1\nprint(x)  # 1'),
    Block(2, 'Second', 20, 'print(x)  # 2'),
    Block(3, 'Third', 30, 'y = x'),
  ]
  assert reader.read(1).x == 1
  with pytest.raises(AssertionError, match=r'tutorial.md:20 \("Second"\) failed: .*2'):
    reader.read(2)
  with pytest.raises(pytest.fail.Exception, match=r'not reached: .*:20'):
    reader.read(3)


def test_world(tutorial: Tutorial) -> None:
  t = tutorial.read(2)
  assert t.SIZE == 'smoke'
  assert (len(t.names), len(t.seen)) == (72, 46)
  assert t.label.max() < 72
  assert set(t.trained.tolist()) <= {*t.seen, t.VOID}
  with Image.open(tutorial.directory / t.WORK / 'truth.png') as picture:
    assert picture.width >= 128


def test_clip(tutorial: Tutorial) -> None:
  t = tutorial.read(3)
  np.testing.assert_allclose(np.linalg.norm(t.text, axis=1), 1, rtol=1e-5)
  assert np.isfinite(t.losses).all() and len(t.losses) == 4
  assert set(t.guesses) == set(t.names.names)
  shares = list(t.guesses.values())
  assert shares == sorted(shares, reverse=True)
  assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_proposer(tutorial: Tutorial) -> None:
  t = tutorial.read(4)
  np.testing.assert_allclose(np.sum(t.p_proposer, axis=1), 1, rtol=1e-5)
  assert np.abs(t.logits).max() <= 100 * (1 + 1e-5)  # cosines times 100


def test_crops_of_true_masks(tutorial: Tutorial) -> None:
  t = tutorial.read(5)
  assert {t.names.names[k] for k in t.classes[t.real]} == set(t.present)
  assert int(t.real.sum()) == len(t.present) < 9
  for i in np.flatnonzero(t.real):
    x0, y0, x1, y1 = (int(v) for v in t.crops.boxes[i])
    ys, xs = np.nonzero(t.label == int(t.classes[i]))
    assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
  by_hand = np.asarray(t.crops.masks).reshape(9, 6, 8, 6, 8).max(axis=(2, 4)) > 0
  np.testing.assert_array_equal(t.keep, by_hand.reshape(9, 36))
  assert not t.keep[t.real].all()  # there are blank patches to speak of
  far = np.asarray(t.crops.pixels)[~np.asarray(t.real)]
  np.testing.assert_array_equal(far, 0)


def test_mined_pairs(tutorial: Tutorial) -> None:
  t = tutorial.read(6)
  assert t.sheet['pairs'] >= t.sheet['unique_nouns'] > 0
  assert t.pair['image'].shape[:2] == t.pair['mask'].shape
  assert t.pair['mask'].shape == (t.y1 - t.y0, t.x1 - t.x0)
  assert set(np.unique(t.pair['mask']).tolist()) <= {0, 255}
  assert t.pair['noun']
  assert (tutorial.directory / t.WORK / 'mine' / 'summary.png').is_file()


def test_prompt_tuning_changes_prompts_alone(tutorial: Tutorial) -> None:
  t = tutorial.read(7)
  assert t.changed == ['visual/mask_prompt']
  assert set(t.new) - set(t.old) == {'visual/mask_prompt'}
  assert t.counts['trainable'] == t.prompts.size == 3 * 36 * 64
  for told in ('not told', 'none masked'):
    np.testing.assert_allclose(t.views[told], t.vectors, rtol=1e-4, atol=1e-5)
  moved = np.abs(np.asarray(t.views['as cut'] - t.vectors)).max(axis=1) > 1e-3
  blank = ~np.asarray(t.keep).all(axis=1)
  np.testing.assert_array_equal(moved, blank)


def test_ovseg_by_hand(tutorial: Tutorial) -> None:
  t = tutorial.read(8)
  assert t.encoded.masks.shape == (20, 128, 128)
  assert t.encoded.regions.shape == t.encoded.embeddings.shape == (20, 64)
  assert t.by_proposer.shape == (20, 73) and t.by_clip.shape == (20, 72)
  assert t.scores.shape == (72, 128, 128) and t.labels.shape == (128, 128)
  assert t.stored['weight'] == 0.2 and t.stored['test']['shortest'] == 128
  assert t.stored['clip']['prompt_depth'] == 3


def test_evaluation(tutorial: Tutorial) -> None:
  t = tutorial.read(9)
  oracles = {f'oracle_{name}' for name in ('masks', 'classes', 'vocabulary')}
  methods = {'proposer', 'clip', 'ensemble_0.20'} | oracles
  among_seen = {'proposer_seen', 'oracle_classes_seen'}
  assert set(t.evaluated) == {'frozen', 'mpt'}
  for found in t.evaluated.values():
    assert set(found['methods']) == methods | among_seen
    assert found['images'] == 16
    for name, key in itertools.product(methods, ('', '_unseen')):
      assert 0 <= found['methods'][name][f'miou{key}'] <= 100
    for name in among_seen:
      assert 0 <= found['methods'][name]['miou'] <= 100
  # Without CLIP, its prompts change nothing.
  for method in ('proposer', 'oracle_classes'):
    frozen, mpt = (t.evaluated[k]['methods'][method] for k in ('frozen', 'mpt'))
    assert frozen['miou'] == pytest.approx(mpt['miou'], abs=0.1)


def test_free_text(tutorial: Tutorial) -> None:
  t = tutorial.read(10)
  assert t.result.names == ('ball', 'ground')
  assert t.result.labels.shape == (128, 128)
  assert sum(t.result.shares().values()) <= 1 + 1e-6
  assert t.agreement > 0.999
  assert (tutorial.directory / t.WORK / 'overlay.png').is_file()


def test_clipseg(tutorial: Tutorial) -> None:
  t = tutorial.read(11)
  assert {x.shape for x in t.picture.activations} == {(1, 257, 64)}
  assert t.heat.shape == (128, 128)
  assert 0 <= t.heat.min() <= t.heat.max() <= 1
  claimed = t.result.scores[t.result.labels >= 0]
  assert (claimed >= 0.3).all()
  assert len(set(t.chosen.tolist())) == 5


def test_coseg(tutorial: Tutorial) -> None:
  t = tutorial.read(12)
  np.testing.assert_allclose(np.linalg.norm(t.slots.tokens, axis=1), 1, rtol=1e-5)
  assert len(t.called) == 10 and set(t.called) <= {*t.names.names, 'unlabeled'}
  assert t.result.names == t.names.names
  assert set(t.systems) == {'no_training', 'prefix'}
  for protocols in t.systems.values():
    assert 0 <= protocols['standard']['methods']['A']['miou'] <= 100
    assert 0 <= protocols['standard']['labels']['recall'] <= 100


def test_stages_are_those_of_the_configurations(
  tutorial: Tutorial, reuse: Reuse, asked: set[str], tmp_path: pathlib.Path
) -> None:
  tutorial.read(12)
  found: dict[str, str] = {}

  def note(mode: str, stage: Any, workdir: pathlib.Path) -> dict[str, Any]:
    found[stage_key(stage, workdir)] = workdir.name
    return {}

  for name in ('quickstart', 'scenes:clipseg', 'scenes:coseg_prefix'):
    config = drawn.configuration(name, 'smoke')
    run_pipeline(Settings.of(config), tmp_path / name, note)
  others = set(found.values()) - {found.get(key) for key in asked}
  # The tutorial's last two stages take the CLIP that it has; those of the
  # configurations train another one for them.
  assert others == {'data', 'report', 'coseg_clip', 'clipseg', 'coseg_prefix'}
  assert len(asked) == 12  # and the evaluation of CoSeg


def test_the_reader_wrote_nothing_elsewhere(tutorial: Tutorial) -> None:
  tutorial.read(12)
  assert os.listdir(tutorial.directory) == ['runs']
