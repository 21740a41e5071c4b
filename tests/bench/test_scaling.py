"""Predictions of scaling, by hand, and the table that is made."""

import pathlib

import pytest

from ovs_jax.bench import scaling
from ovs_jax.bench.collectives import Loop
from ovs_jax.bench.programs import StepProgram
from ovs_jax.bench.scaling import Chip

CHIP = Chip(flops={'float32': 100.0, 'bfloat16': 200.0}, link=10.0)
ISLANDS = Chip(flops={'float32': 100.0}, link=10.0, island=4, outside=1.0)


def program(**changed: object) -> StepProgram:
  given = {
    'work': {'float32': 50.0},
    'gradients': 80,
    'arguments': 1_000_000,
    'temporary': 2_000_000,
    'sent': {'all-reduce': 80},
    'loops': [],
  }
  return StepProgram(**(given | changed))


def test_a_ring_sends_almost_everything_twice() -> None:
  assert scaling.ring_seconds(80.0, 4, CHIP) == pytest.approx(2 * 3 / 4 * 80 / 10)
  # Four add up inside, then a quarter of the sum goes around the two islands.
  assert scaling.ring_seconds(80.0, 8, ISLANDS) == pytest.approx(12 + 2 / 2 * 20 / 1)
  assert scaling.ring_seconds(80.0, 4, ISLANDS) == pytest.approx(12)


def test_the_share_is_that_of_computing_at_the_peak_of_the_types() -> None:
  # 300 operations at 50 a second, then 12 seconds of sending.
  share = scaling.computing_share(program(), 4, CHIP, examples=6)
  assert share == pytest.approx(6 / (6 + 12))
  both = program(work={'float32': 50.0, 'bfloat16': 100.0})
  share = scaling.computing_share(both, 4, CHIP, examples=6)
  assert share == pytest.approx(12 / (12 + 12))
  # Of 8 examples' gathered bytes there are twice as many with 16; half goes each way.
  gathers = program(sent={'all-reduce': 80, 'all-gather': 80})
  share = scaling.computing_share(gathers, 16, CHIP, examples=6)
  assert share == pytest.approx(6 / (6 + 2 * 15 / 16 * (80 + 80) / 10))


def test_lines_take_the_place_of_those_of_their_steps() -> None:
  loops = [Loop('a', 18, 1), Loop('b', None, 2)]
  first = scaling.line('mpt_vitl14', 256, program(loops=loops), predicted=True)
  assert first.startswith('| mpt_vitl14 | 256 | 0 | 0.0 | 1 | 2 | 0.0 | 0.0 | 18 + 1 ')
  second = scaling.line('ft_vitl14', 256, program(), predicted=False)
  assert second.endswith('| 0 | - | - | - |')
  text = f'before\n{scaling._MARK}\n{scaling._MARK}\nafter\n'
  text = scaling.rewrite(text, {'ft_vitl14': second})
  text = scaling.rewrite(text, {'mpt_vitl14': first})
  again = scaling.rewrite(text, {'ft_vitl14': second})
  lines = ['before', scaling._MARK, *scaling.heading(), first, second]
  assert again == text == '\n'.join([*lines, scaling._MARK, 'after', ''])
  with pytest.raises(ValueError, match='found 0'):
    scaling.rewrite('no place', {})


def test_the_document_has_lines_of_steps_in_their_order() -> None:
  text = pathlib.Path('docs/scaling.md').read_text().split(scaling._MARK)[1]
  lines = [line for line in text.splitlines() if line.startswith('| ')][1:]
  found = [line.split(' | ')[0].removeprefix('| ') for line in lines]
  assert found == [x.name for x in scaling.ROWS if x.name in found]


def test_changes_are_keys_of_the_configurations() -> None:
  for given in scaling.ROWS:
    config = scaling.configured(given)
    assert config.train.batch_size % 8 == 0
  assert scaling.configured(scaling.ROWS[-1]).proposer.remat


def test_a_step_that_is_not_known_is_refused(
  capsys: pytest.CaptureFixture[str],
) -> None:
  with pytest.raises(SystemExit) as stopped:
    scaling.main(['--only=mpt_vitl41'])
  assert stopped.value.code == 2
  assert '--only=mpt_vitl41 is in the name of no step; known: mpt_vitl14;' in (
    capsys.readouterr().err
  )
