"""A trained model beside what was exported of it: how fast, and the same labels?

    python -m ovs_jax.bench --workload=exports --set=checkpoint=DIR --set=exported=DIR

The engines that the folder is for must be installed here: TensorFlow for a SavedModel,
onnxruntime for ONNX. `web` is for a browser, and not measured.
"""

import dataclasses
import importlib
import pathlib
import sys
from typing import Any

import numpy as np

from ovs_jax.bench import modes
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.types import Int, UInt8
from ovs_jax.inference.segmenter import Segmenter

# Of each format its files, and the module and class that run them.
FORMATS = {
  'stablehlo': (('*.stablehlo', '*.safetensors'), 'run', 'Runner'),
  'savedmodel': (('savedmodel/**/*',), 'run_tf', 'TensorFlowRunner'),
  'onnx': (('onnx/*.onnx',), 'run_onnx', 'OnnxRunner'),
}


@dataclasses.dataclass(frozen=True)
class Options(modes.Options):
  """What `--set` changes, beside the model and the data set of the workload `modes`.

  Attributes:
    exported: what `ovs_jax export` made of the checkpoint.
    images: how many of the data set's first ones.
  """

  exported: str = 'exported/quickstart'
  images: int = 20


def build(options: Options) -> Workload:
  """The package's own `Segmenter`, then every format that the folder has.

  Raises:
    UserError: it has none, or an engine is not installed.
  """
  folder = local(options.exported)
  sizes = {kind: _megabytes(folder, kind) for kind in FORMATS}
  if not any(sizes.values()):
    known = ', '.join(FORMATS)
    raise UserError(f'{folder} has no exported model ({known}); make it with export')
  pictures, names = modes.labelled(options)
  model = Segmenter.load(options.checkpoint)
  labels: dict[str, modes.Label] = {
    'Segmenter': lambda image: model.segment(model.encode(image), list(names)).labels
  }
  sys.path.insert(0, str(folder))  # the runners import each other by name
  facts: dict[str, Any] = {'classes': len(names)}
  for kind in (kind for kind, size in sizes.items() if size):
    facts[f'MB: {kind}'] = round(sizes[kind], 1)
    labels[kind] = _labelling(_runner(folder, kind), names)
  first: list[np.ndarray] = []
  variants = [
    Variant(kind, modes.compared(kind, label, pictures, len(names), facts, first))
    for kind, label in labels.items()
  ]
  return Workload('pictures', len(pictures), variants, facts)


def _runner(folder: pathlib.Path, kind: str) -> Any:
  _, module, name = FORMATS[kind]
  try:
    return getattr(importlib.import_module(module), name)(folder)
  except ImportError as error:
    raise UserError(f'{kind} in {folder} is not to be run here: {error}') from error


def _labelling(runner: Any, names: tuple[str, ...]) -> modes.Label:
  def label(image: UInt8[np.ndarray, 'h w 3']) -> Int[np.ndarray, 'h w']:
    return runner.segment(image, names)[0]

  return label


def _megabytes(folder: pathlib.Path, kind: str) -> float:
  patterns, *_ = FORMATS[kind]
  files = (path for pattern in patterns for path in folder.glob(pattern))
  return sum(path.stat().st_size for path in files if path.is_file()) / 1e6
