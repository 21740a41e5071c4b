"""Whole checkpoints: from files to our directories, the comparison, and back."""

import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ovs_jax
from ovs_jax.convert import SOURCES, torch_writer
from ovs_jax.convert.family import Conversion, Options
from ovs_jax.convert.reader import Checkpoint, read
from ovs_jax.convert.tensors import Tensors
from ovs_jax.convert.wrapped import unwrap, without
from ovs_jax.core import attached
from ovs_jax.core.checkpoint import (
  NOT_FINITE,
  load_config,
  load_model,
  save_model,
)
from ovs_jax.core.content import is_finite
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Path,
  Place,
  absolute,
  atomic_path,
  check_replaceable,
  check_writable,
  place,
  write_json,
)
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import flatten, shorten
from ovs_jax.core.types import Params

# Types that are smaller than ours; what came in one of them leaves in it.
_HALVES = ('float16', 'bfloat16')
_SAFE = '.safetensors'


@dataclasses.dataclass(frozen=True)
class Report:
  """What was done.

  Attributes:
    family: name in `SOURCES`.
    model: configuration of the model, as it is stored.
    tensors: how many foreign tensors there were, constants not counted.
    values: how many numbers those have.
  """

  family: str
  model: dict[str, Any]
  tensors: int
  values: int


def choose(checkpoint: Checkpoint, source: str = 'auto') -> str:
  """Returns the family of a checkpoint.

  Args:
    checkpoint: what was read.
    source: a name in `SOURCES`, or `auto` to go by the names of the tensors.

  Raises:
    ValueError: no family recognises it, or several do.
  """
  if source != 'auto':
    lookup(SOURCES, source, 'source')
    return source
  found = _fitting(checkpoint)
  if len(found) == 1:
    return found[0]
  known = SOURCES if not found else {name: SOURCES[name] for name in found}
  clues = '\n'.join(
    f'  --source={name}: {family.clue}' for name, family in known.items()
  )
  if found:
    raise UserError(
      f'the names of the tensors fit {", ".join(found)}, which do not compute alike; '
      f'say where the weights come from:\n{clues}'
    )
  some = ', '.join(sorted(checkpoint.tensors)[:6])
  raise UserError(
    f'no known family has such tensors ({len(checkpoint.tensors)}: {some} ...). Known '
    f'families and what tells them apart:\n{clues}'
  )


def _fitting(checkpoint: Checkpoint) -> list[str]:
  tensors, config = checkpoint.tensors, checkpoint.config
  return [n for n, family in SOURCES.items() if family.recognise(tensors, config)]


def convert(
  path: Path,
  output: Path,
  *,
  source: str = 'auto',
  options: Options | None = None,
  key: str | None = None,
  overwrite: bool = False,
  allow_not_finite: bool = False,
) -> Report:
  """Converts a foreign checkpoint into a model directory of ours, atomically.

  Args:
    path: file or folder to read.
    output: directory to write.
    source: family, or `auto`.
    options: what the file does not say.
    key: the entry of a pickled file that has the model; None looks for the usual ones.
    overwrite: whether `output` may have something in it, which is replaced.
    allow_not_finite: whether parameters may be NaN or infinite.

  Raises:
    ValueError, OSError: what is wrong with the file, the wishes or the directory. One
      that is replaced was written by this package, and does not hold the input.
  """
  options = options or Options()
  output = _claim(output, overwrite=overwrite)
  _keep_apart(path, output)
  checkpoint, prefix = unwrap(read(path, key=key), lambda c: bool(_fitting(c)))
  name = choose(checkpoint, source)
  conversion = SOURCES[name].convert(checkpoint.tensors, checkpoint.config, options)
  if not allow_not_finite:
    _check_finite(path, conversion.params)
  record = _record(checkpoint, name, conversion, options)
  record |= {'key': key, 'prefix': prefix}
  model = {
    **conversion.model,
    'source': {**record, NOT_FINITE: True} if allow_not_finite else record,
  }
  leaves = jax.tree.leaves(conversion.params)
  _check_space(output, sum(x.nbytes for x in leaves))
  save_model(output, conversion.params, model)
  return Report(name, model, len(conversion.tensors), sum(x.size for x in leaves))


def check(path: Path, output: Path) -> Report:
  """Reads a foreign checkpoint and its conversion again and compares every number.

  Raises:
    ValueError: they differ, or the directory was converted from something else.
  """
  model = load_config(output)
  if 'source' not in model:
    raise UserError(f'{output} was trained here, not converted; nothing to compare')
  record = model['source']
  checkpoint = without(read(path, key=record.get('key')), record.get('prefix', ''))
  origin = checkpoint.metadata
  if record['sha256'] != origin.sha256:
    raise UserError(
      f'{output} was converted from {record["file"]} with sha256 {record["sha256"]}; '
      f'{path} has {origin.sha256}'
    )
  family = lookup(SOURCES, record['family'], 'source')
  conversion = family.convert(
    checkpoint.tensors, checkpoint.config, Options(**record['options'])
  )
  tensors = conversion.tensors
  wanted = json.loads(json.dumps(conversion.model))  # tuples are stored as lists
  del conversion  # its parameters; both need not be in memory
  params, _ = load_model(output)  # a leaf at a time takes 75 ms each
  differences = [
    f'configuration {key!r}' for key in wanted if wanted[key] != model.get(key)
  ]
  values = 0
  for name, got in family.export_each(params, model, sorted(tensors, key=pattern_of)):
    want = np.asarray(tensors[name]).astype(np.float32, copy=False)
    values += want.size
    if got.shape != want.shape:
      differences.append(f'{name} {got.shape} instead of {want.shape}')
    elif not np.array_equal(got, want, equal_nan=True):
      differences.append(f'{name} by up to {np.nanmax(np.abs(got - want)):.3g}')
  missing = sorted(set(family.names(model)) - set(tensors))
  differences += [f'{name} is not in {path}' for name in missing]
  if differences:
    raise UserError(
      f'{len(differences)} of {len(tensors)} tensors differ between {path} and '
      f'{output}: {shorten(differences)}'
    )
  return Report(record['family'], model, len(tensors), values)


def export(
  directory: Path, output: Path, *, layout: str, overwrite: bool = False
) -> Report:
  """Writes one of our checkpoints in the layout of a family.

  As safetensors, or as the ending of the file says: .pt and .pth as `torch.save` writes
  a state dict, .pkl as detectron2 keeps a backbone. Numbers that came as float16 or
  bfloat16, and still fit, leave as such.

  Args:
    directory: model directory, or a run.
    output: file to write, or folder where the family has settings beside the tensors.
    layout: name in `SOURCES`.
    overwrite: whether `output` may exist, and is replaced.

  Raises:
    ValueError, OSError: the layout cannot hold the model, or `output` is not free.
  """
  family = lookup(SOURCES, layout, 'layout')
  endings = (_SAFE, *torch_writer.WRITERS)
  if not family.folder and place(output).suffix not in endings:
    raise UserError(
      f'--output={output} must end in {", ".join(endings[:-1])} or {endings[-1]}'
    )
  output = _claim(output, overwrite=overwrite)
  _keep_apart(directory, output)
  params, model = load_model(directory, kind=family.model)
  tensors = family.export(params, model, family.names(model))
  del params
  return _write(tensors, model, output, layout)


def write(
  params: Params, model: dict[str, Any], output: Path, *, layout: str
) -> Report:
  """Writes a model that is not stored yet in the layout of a family.

  Args:
    params: of the model.
    model: its configuration, as it would be stored.
    output: what `export` takes; replaced if it exists.
    layout: name in `SOURCES`.

  Raises:
    ValueError, OSError: the layout cannot hold the model, or the disk is full.
  """
  family = lookup(SOURCES, layout, 'layout')
  tensors = family.export(params, model, family.names(model))
  return _write(tensors, model, place(output), layout)


def _write(
  tensors: dict[str, np.ndarray], model: dict[str, Any], output: Place, layout: str
) -> Report:
  family = SOURCES[layout]
  record = {'dtypes': {}, **model.get('source', {})}
  tensors = {
    name: _smaller(x, record['dtypes'].get(pattern_of(name)))
    for name, x in tensors.items()
  }
  if record.get('family') == layout:
    for name in record['constants']:
      tensors[name] = family.constant(name, model)
  _check_space(output, sum(x.nbytes for x in tensors.values()))
  with atomic_path(output) as temporary:
    if family.folder:
      temporary.mkdir()
      _write_tensors(temporary / f'model{_SAFE}', tensors, _SAFE)
      for name, value in family.settings(model).items():
        write_json(temporary / name, value)
      attached.write(temporary, model)
    else:
      _write_tensors(temporary, tensors, output.suffix)
  return Report(layout, model, len(tensors), sum(x.size for x in tensors.values()))


def _write_tensors(
  path: pathlib.Path, tensors: dict[str, np.ndarray], ending: str
) -> None:
  if ending != _SAFE:
    torch_writer.WRITERS[ending](path, tensors)
    return
  from safetensors.numpy import save_file

  save_file(tensors, path, metadata={'format': 'pt'})  # `transformers` asks for it


def _record(
  checkpoint: Checkpoint, family: str, conversion: Conversion, options: Options
) -> dict[str, Any]:
  """Returns what is stored about where a model came from."""
  origin = checkpoint.metadata
  return {
    'file': origin.file,
    'sha256': origin.sha256,
    'files': {file.name: file.sha256 for file in origin.files},
    'container': checkpoint.container,
    'family': family,
    'converter_version': ovs_jax.__version__,
    'options': options.wishes,
    'settings': checkpoint.settings,
    'constants': list(conversion.constants),
    'left_out': list(conversion.left_out),
    'skipped': sorted(origin.skipped),
    'dtypes': _dtypes(conversion.tensors),
  }


def pattern_of(name: str) -> str:
  """Returns the name of a tensor without the index of its layer."""
  return re.sub(r'\.\d+\.', '.*.', name)


def _dtypes(tensors: Tensors) -> dict[str, str]:
  """Returns the types of the tensors that are halves, by the pattern of their names."""
  found: dict[str, set[str]] = {}
  for name in tensors:
    found.setdefault(pattern_of(name), set()).add(tensors.entry(name).dtype.name)
  only = {pattern: min(kinds) for pattern, kinds in found.items() if len(kinds) == 1}
  return {pattern: kind for pattern, kind in only.items() if kind in _HALVES}


def _smaller(x: np.ndarray, dtype: str | None) -> np.ndarray:
  """Returns the values in a smaller type if that changes none of them."""
  if dtype is None:
    return x
  half = x.astype(jnp.dtype(dtype))
  return half if np.array_equal(half.astype(x.dtype), x, equal_nan=True) else x


def _claim(output: Path, *, overwrite: bool) -> Place:
  output = absolute(place(output))
  taken = output.is_file() or (output.is_dir() and any(output.iterdir()))
  if taken and not overwrite:
    raise UserError(
      f'{output} exists already; choose another --output= or add --overwrite'
    )
  check_replaceable(output)
  return output


def _check_finite(path: Path, params: Params) -> None:
  """Refuses parameters that no network computes anything with."""
  leaves: dict[str, np.ndarray] = flatten(params)
  bad = [name for name, x in leaves.items() if not is_finite(x)]
  if bad:
    raise UserError(
      f'{len(bad)} of {len(leaves)} parameters of {path} are NaN or infinite: '
      f'{shorten(bad)}. The file is damaged, or its training failed; '
      '--allow_not_finite converts it all the same'
    )


def _keep_apart(path: Path, output: Place) -> None:
  """Refuses to write over what is read."""
  given = absolute(place(path))
  if output == given or output in given.parents:
    raise UserError(
      f'--input={path} lies in --output={output}, which would be replaced; choose '
      'another --output='
    )


def _check_space(output: Place, size: int) -> None:
  check_writable(output.parent, megabytes=size // 2**20 + 1, option='--output=')
