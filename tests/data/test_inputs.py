"""What is missing is told at once, with the commands that make it."""

import pytest

from ovs_jax.data.inputs import check_inputs


def absent():
  raise FileNotFoundError('the data are not there. Prepare them: COMMAND')


def test_everything_that_is_missing_is_listed(tmp_path):
  wanted = [
    ('config.init.clip', 'clip', str(tmp_path / 'b16')),
    ('config.init.other', 'clipseg', ''),
    ('config.there', 'coseg', str(tmp_path)),
  ]
  with pytest.raises(FileNotFoundError) as error:
    check_inputs(wanted, absent, embedded=False)
  text = str(error.value)
  assert text.startswith('2 missing inputs. config.init.clip: there is no')
  assert f'ovs_jax.convert --download=ViT-B/16 --output={tmp_path / "b16"}' in text
  assert text.endswith('data: the data are not there. Prepare them: COMMAND')


def test_the_embedded_world_is_drawn_last(tmp_path):
  wanted = [('config.init.clipseg', 'clipseg', str(tmp_path / 'no'))]
  with pytest.raises(FileNotFoundError, match='configs/scenes.py:clipseg --workdir='):
    check_inputs(wanted, lambda: pytest.fail('drawn'), embedded=True)
  assert check_inputs([], lambda: 7, embedded=True) == 7
