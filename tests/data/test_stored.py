"""Data sets from others: what they name is not imported."""

import json
import pathlib
import sys

import pytest

from ovs_jax.data import pairs
from ovs_jax.data.stored import open_stored


@pytest.fixture
def mined(tmp_path: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a data set without any pair."""
  pairs.write(tmp_path / 'pairs', [], {})
  (path,) = (tmp_path / 'pairs').glob('*/*/features.json')
  return path.parent


def test_what_we_write_is_opened(mined: pathlib.Path) -> None:
  assert set(open_stored(mined).info.features) == set(pairs.features())


@pytest.mark.parametrize('key', ['pythonClassName', 'type'])
def test_foreign_classes_are_refused_and_not_imported(
  key: str,
  mined: pathlib.Path,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  (tmp_path / 'harmful.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  monkeypatch.syspath_prepend(str(tmp_path))
  content = json.loads((mined / 'features.json').read_text())
  content['featuresDict']['features']['noun'][key] = 'harmful.Feature'
  (mined / 'features.json').write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r'names harmful\.Feature, which TFDS would'):
    open_stored(mined)
  assert 'harmful' not in sys.modules and not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
  'name', ['tensorflow_datasets.core.features.x.y.Z', 'os.system', '']
)
def test_only_fields_of_tfds_count(name: str, mined: pathlib.Path) -> None:
  content = [{'a': [{'pythonClassName': name}]}]
  (mined / 'features.json').write_text(json.dumps(content))
  with pytest.raises(ValueError, match='which TFDS would import'):
    open_stored(mined)


def test_damage_is_named(mined: pathlib.Path) -> None:
  (mined / 'features.json').write_text('{"featuresDict": ')
  with pytest.raises(ValueError, match=r'features\.json cannot be read'):
    open_stored(mined)
