"""From a checkpoint to a folder that segments without this package."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import ovs_jax
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, atomic_path, local, write_json
from ovs_jax.core.lookup import lookup
from ovs_jax.export import stablehlo, web
from ovs_jax.export.programs import TILE, Program, padded_sizes, programs, weights_of
from ovs_jax.export.tokenizer import tokenizer_table
from ovs_jax.inference.load import load_system
from ovs_jax.inference.named import located
from ovs_jax.inference.ovseg import OTHERS, OvSegSystem
from ovs_jax.models.maskformer import IMAGENET_MEAN
from ovs_jax.models.reduced import SCALE, WEIGHTS, reduced
from ovs_jax.models.stored import MODELS, kind_of
from ovs_jax.text.templates import sentences

FORMAT = 1  # of manifests; one more when an older run.py would misread them
KINDS = ('ovseg',)
MANIFEST, TOKENIZER, TENSORS = 'manifest.json', 'tokenizer.json', 'weights.safetensors'
ONNX_PYTHON = 'OVS_ONNX_PYTHON'  # names the Python of the environment for ONNX
ROOT = local(ovs_jax.__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Job:
  """What the writer of a format is given.

  Attributes:
    folder: to write into.
    checkpoint: of the model.
    parts: its programs.
    weights: arrays by path.
    about: the manifest.
    tokenizer: as in tokenizer.json.
    ort: a folder with onnxruntime-web; None: npm brings it.
  """

  folder: pathlib.Path
  checkpoint: Path
  parts: Sequence[Program]
  weights: Mapping[str, np.ndarray]
  about: Mapping[str, Any]
  tokenizer: Mapping[str, Any]
  ort: Path | None

  def take(self, name: str) -> None:
    """Copies a file that lies beside this one, and runs without the package."""
    shutil.copyfile(local(__file__).with_name(name), self.folder / name)


def write(
  checkpoint: Path,
  output: Path,
  *,
  formats: Sequence[str],
  aspect: float = 2.0,
  kind: str = 'float32',
  ort: Path | None = None,
) -> pathlib.Path:
  """Exports a model, all of it or nothing.

  Args:
    checkpoint: an OVSeg: a model directory, a run, or a name.
    output: a folder that is empty or not there.
    formats: of `FORMATS`.
    aspect: photos of at most this longer side over the shorter one can be segmented.
    kind: of the weights, of `models.reduced.WEIGHTS`; all with 'stablehlo' alone.
    ort: a folder with onnxruntime-web, for 'web'; None: npm brings it.

  Returns:
    The folder.

  Raises:
    UserError: a format is unknown, the model cannot be exported, or something is in
      the folder.
    FileNotFoundError: there is no such checkpoint, or no vocabulary of CLIP's.
  """
  writers = [lookup(FORMATS, name, 'format') for name in dict.fromkeys(formats)]
  folder = local(output)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(f'{folder} is not an empty folder; give one, or a new name')
  _check(formats, aspect, kind, ort)
  directory = located(checkpoint)
  system = _exportable(directory)
  settings = system.settings
  sizes = padded_sizes(settings.shortest, settings.longest, aspect)
  weights = reduced(weights_of(system), kind)
  parts = [_taking(part, weights) for part in programs(system, sizes)]
  tokenizer = tokenizer_table(system.config.clip.context_length)
  with atomic_path(folder) as temporary:
    temporary.mkdir()
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(',', ':'))
    (temporary / TOKENIZER).write_text(text, encoding='utf-8')
    about = {
      'formats': list(dict.fromkeys(formats)),
      'weights': kind,
      **manifest(system, parts, sizes),
    }
    write_json(temporary / MANIFEST, about)
    job = Job(temporary, directory, parts, weights, about, tokenizer, ort)
    for name in ('run.py', 'run_parts.py'):
      job.take(name)
    for writer in writers:
      writer(job)
  return folder


def _check(formats: Sequence[str], aspect: float, kind: str, ort: Path | None) -> None:
  if not 1 <= aspect <= 10:
    raise UserError(f'the aspect must lie in 1..10, got {aspect}')
  lookup(dict.fromkeys(WEIGHTS), kind, 'kind of weights')
  whole = [name for name in formats if name != 'stablehlo']
  if kind != WEIGHTS[0] and whole:
    raise UserError(
      f'{", ".join(whole)}: with weights of float32 alone, not {kind}; leave one out'
    )
  if ort is not None and 'web' not in formats:
    raise UserError("--ort is for the format 'web' alone; leave it out")


def _taking(part: Program, weights: Mapping[str, np.ndarray]) -> Program:
  """Lets a program take the scales of its weights, too."""
  paths = [x for path in part.weights for x in (path, path + SCALE) if x in weights]
  return dataclasses.replace(part, weights=tuple(sorted(paths)))


def _exportable(directory: Path) -> OvSegSystem:
  """Reads a model, if it is one that can be exported."""
  kind = kind_of(directory, kinds=tuple(MODELS))
  if kind not in KINDS:
    raise UserError(
      f'{directory} holds a {kind!r} model, which cannot be exported; '
      f'{", ".join(KINDS)} can'
    )
  system = load_system(directory, text_cache='off')
  system.config.check_one_clip(directory)
  if system.config.clip.text_tower.tokenizer:
    raise UserError(
      f'the CLIP of {directory} reads texts by a tokenizer.json, which cannot be '
      "exported; one with OpenAI's tokenizer can"
    )
  return system


def manifest(
  system: OvSegSystem, parts: Sequence[Program], sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
  """Returns what a runner has to know: shapes, units, preprocessing and versions."""
  settings = system.settings
  return {
    'format': FORMAT,
    'kind': system.kind,
    'made_with': {'ovs_jax': ovs_jax.__version__, **stablehlo.window()},
    'platforms': stablehlo.PLATFORMS,
    'photo': {
      'colours': 'RGB, 0..255',
      'resize': "Pillow's bilinear filter, which antialiases",
      'shortest': settings.shortest,
      'longest': settings.longest,
      'sizes': sizes,
      'fill': IMAGENET_MEAN,
      'tile': TILE,
    },
    'names': {
      'templates': sentences(settings.templates),
      'others': OTHERS,
      'width': system.config.clip.embed_dim,
      'whole': system.config.clip.text_tower.sees_padding,
    },
    'ensemble': {
      'classifier': settings.classifier,
      'weight': settings.weight,
      'temperature': system.mix.temperatures[0],
    },
    'programs': {
      part.name: {
        'file': f'{part.name}.stablehlo',
        'weights': part.weights,
        'inputs': [one.entry() for one in part.inputs],
        'outputs': [one.entry() for one in part.outputs],
        'constraints': part.constraints,
      }
      for part in parts
    },
  }


def _write_stablehlo(job: Job) -> None:
  save_file(dict(job.weights), job.folder / TENSORS)
  (job.folder / TENSORS).chmod(0o644)
  for part in job.parts:
    content = stablehlo.serialized(part, job.weights)
    (job.folder / job.about['programs'][part.name]['file']).write_bytes(content)


def _write_savedmodel(job: Job) -> None:
  if importlib.util.find_spec('tensorflow') is None:
    raise UserError(
      "the format 'savedmodel' takes TensorFlow; install it with pip install "
      'tensorflow-cpu'
    )
  from ovs_jax.export import savedmodel

  savedmodel.write_savedmodel(job.folder, job.parts, job.weights, job.about)
  job.take('run_tf.py')


def _write_onnx(job: Job) -> None:
  _convert(job, job.folder / 'onnx', list(job.about['programs']))
  job.take('run_onnx.py')


def _write_web(job: Job) -> None:
  folder = job.folder / 'web'
  folder.mkdir()
  web.write_engine(folder / 'ort', job.ort)
  web.write_page(folder, dict(job.tokenizer))
  shutil.copyfile(job.folder / MANIFEST, folder / MANIFEST)
  networks = [name for name in job.about['programs'] if name != 'label']
  _convert(job, folder / 'models', [*networks, 'maps'])


def _convert(job: Job, target: pathlib.Path, names: Sequence[str]) -> None:
  """Has ONNX models written where jax2onnx is installed, which is not here."""
  python = local(os.environ.get(ONNX_PYTHON) or ROOT / '.venv-onnx' / 'bin' / 'python')
  if not python.is_file():
    raise UserError(
      f'ONNX takes an environment of its own, and {python} is not there; make it with '
      f'launch/onnx_env.sh, or set {ONNX_PYTHON} to its Python'
    )
  target.mkdir()
  module = [str(python), '-m', 'ovs_jax.export.onnx_models']
  command = [*module, str(job.checkpoint), str(target), *names]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(command, capture_output=True, text=True, env=environment)
  if done.returncode:
    lines = done.stderr.strip().splitlines() or ['it says nothing']
    raise UserError(f'the conversion to ONNX by {python} failed: {lines[-1]}')


FORMATS: dict[str, Callable[[Job], None]] = {
  'stablehlo': _write_stablehlo,
  'savedmodel': _write_savedmodel,
  'onnx': _write_onnx,
  'web': _write_web,
}
