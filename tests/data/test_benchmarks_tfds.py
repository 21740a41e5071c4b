"""TFDS's own checks of every builder, on tiny copies of the official layouts."""

import pathlib
import pickle
import shutil
import sys
import tempfile
from typing import Any

import tensorflow_datasets as tfds
import tiny_layouts
from tensorflow_datasets.core import registered

from ovs_jax.data import benchmarks, folder

# Examples by split; the unlabelled image of COCO's train split is left out.
SPLITS = {
  'coco_stuff_171': {'train': 1, 'val': 2},
  'coco_stuff_156_15': {'train': 1, 'val': 2},
  'coco_80': {'val': 2},
  'coco_captions_2017': {'train': 2, 'val': 2},
  'ade20k_150': {'val': 2},
  'ade20k_847': {'val': 2},
  'pascal_context_59': {'val': 2},
  'pascal_context_459': {'val': 2},
  'voc_20': {'val': 2},
  'voc_20b': {'val': 2},
  'voc_21': {'val': 2},
}


# tfds.testing imports dill, for checks of features that are not used here.
sys.modules.setdefault('dill', pickle)


class Settings:
  """What TFDS has to know, and the tiny copies."""

  SKIP_CHECKSUMS = True  # nothing is downloaded
  MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # sources are local
  BUILDER_CONFIG_NAMES_TO_TEST: Any = ['partial']

  @classmethod
  def setUpClass(cls) -> None:
    cls.root = pathlib.Path(tempfile.mkdtemp())
    cls.EXAMPLE_DIR = str(cls.root)
    cls.fill(cls.root)
    super().setUpClass()

  @classmethod
  def tearDownClass(cls) -> None:
    super().tearDownClass()
    shutil.rmtree(cls.root)

  @classmethod
  def fill(cls, root: pathlib.Path) -> None:
    """Writes the source."""
    tiny_layouts.everything(root)

  def test_registered(self) -> None:
    # TFDS's own version imports every data set that TFDS knows, which takes long.
    assert registered._DATASET_REGISTRY[self.builder.name] is self.DATASET_CLASS


class FolderTest(Settings, tfds.testing.DatasetBuilderTestCase):
  """The builder of a user's folder."""

  DATASET_CLASS = folder.Folder
  SPLITS = {'val': 2}

  @classmethod
  def fill(cls, root: pathlib.Path) -> None:
    for name in 'ab':
      tiny_layouts.photo(root / f'images/{name}.jpg')
      tiny_layouts.grey(root / f'masks/{name}.png', tiny_layouts.values([0, 1, 255]))
    (root / 'names.txt').write_text('cat\ndog\n')
    source = folder.survey(root)
    config = folder.FolderConfig(name='tiny', description='Two.', source=source)
    cls.BUILDER_CONFIG_NAMES_TO_TEST = [config]

  def _make_builder(self, config: Any = None) -> Any:
    # A folder has no configurations of its own to choose from.
    return super()._make_builder(config or self.BUILDER_CONFIG_NAMES_TO_TEST[0])


for _name, _splits in SPLITS.items():
  _cls = benchmarks.BENCHMARKS[_name]
  _bases = (Settings, tfds.testing.DatasetBuilderTestCase)
  _attributes = {'DATASET_CLASS': _cls, 'SPLITS': _splits, '__module__': __name__}
  globals()[f'{_cls.__name__}Test'] = type(f'{_cls.__name__}Test', _bases, _attributes)
del _cls, _bases


def test_every_builder_is_here() -> None:
  assert set(SPLITS) == set(benchmarks.BENCHMARKS)
