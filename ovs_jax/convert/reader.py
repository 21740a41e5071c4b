"""Reads the checkpoints of other programs without PyTorch and without running them.

    checkpoint = read('ViT-B-16.pt')
    for name, values in checkpoint.tensors.items(): ...

PyTorch's archives (also TorchScript's and those of before version 1.6), safetensors,
detectron2's pickles, and Hugging Face folders, whole or in shards. Values are read one
tensor at a time.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert import allowed, open_clip
from ovs_jax.convert.safetensors_file import is_safetensors, read_safetensors
from ovs_jax.convert.state_dict import check_tensors, find
from ovs_jax.convert.storage import open_file
from ovs_jax.convert.tensors import Tensors
from ovs_jax.convert.torch_archive import Loaded, read_stream, read_zip
from ovs_jax.convert.unpickle import Unpickler
from ovs_jax.core import attached
from ovs_jax.core.buckets import Copy
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import place, read_json
from ovs_jax.core.tree import shorten

# What a Hugging Face folder may hold, in the order of preference.
FOLDER_FILES = (
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
  'open_clip_model.safetensors',
  'open_clip_pytorch_model.bin',
)

# How the stream of torch.save begins: the pickled number `torch_archive.MAGIC`.
STREAM = re.compile(
  rb'\x80.(\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.', re.S
)

# How files begin that are taken for checkpoints by mistake, and what to do.
MISTAKEN = (
  (rb'\s*(<!doctype|<html|<\?xml|<head)', 'a web page', 'Download the file itself'),
  (rb'version https://git-lfs', 'a Git LFS pointer', 'Run "git lfs pull" to get it'),
  (rb'\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd', 'compressed', 'Unpack it first'),
  (rb'\x89HDF', 'an HDF5 file', 'Keras and TensorFlow weights are not read'),
  (rb'\x93NUMPY', 'a NumPy array', 'Arrays without names are not read'),
  (rb'\s*[\[{]', 'a JSON file', 'Give the folder or the file with the weights'),
  (rb'.{257}ustar', 'a tar archive', 'If PyTorch before 0.1.10 wrote it, save it anew'),
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint of another program.

  Attributes:
    path: the file or folder.
    tensors: of the model.
    files: that were read, of a folder the shards.
    container: the kind of file.
    entry: under which names of the file the model was; empty if all of it.
    skipped: from names of entries that are not tensors of the model to what they are.
    notes: the file's own metadata (safetensors).
    config: config.json of a Hugging Face folder, with preprocessor_config.json under
      that name, or open_clip_config.json, or None.
    copy: keeps the files there, where they were read from an address.
  """

  path: pathlib.Path
  tensors: Tensors
  files: tuple[pathlib.Path, ...]
  container: str
  entry: str = ''
  skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  config: Mapping[str, Any] | None = None
  copy: Copy | None = None

  @property
  def settings(self) -> str | None:
    """Returns the name of the file that `config` is of, if any."""
    if self.config is None:
      return None
    return open_clip.FILE if open_clip.describes(self.config) else 'config.json'

  @functools.cached_property
  def metadata(self) -> 'Metadata':
    """Returns where the tensors come from; hashes the files when first asked."""
    files = []
    for path in self.files:
      with open_file(path) as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
      files.append(SourceFile(path.name, path.stat().st_size, digest))
    return Metadata(self.path.name, tuple(files), self.skipped, self.notes)


@dataclasses.dataclass(frozen=True)
class SourceFile:
  """A file that was read."""

  name: str
  bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Metadata:
  """Where tensors come from.

  Attributes:
    file: name of the file or folder.
    files: what was read of it; `skipped` and `notes` are those of `Checkpoint`.
  """

  file: str
  files: tuple[SourceFile, ...]
  skipped: Mapping[str, str]
  notes: Mapping[str, str]

  @property
  def sha256(self) -> str:
    """Returns the hash of the file; of several, that of their hashes in order."""
    hashes = [file.sha256 for file in self.files]
    if len(hashes) == 1:
      return hashes[0]
    return hashlib.sha256('\n'.join(hashes).encode()).hexdigest()


def read(path: str | os.PathLike[str], *, key: str | None = None) -> Checkpoint:
  """Opens a checkpoint; values are read later, through `tensors`.

  Args:
    path: a file (.pt, .pth, .bin, .pkl, .safetensors; its content decides, not its
      name), a Hugging Face folder, or the .index.json of one.
    key: the entry of a pickled file that has the model; None looks for the usual ones.

  Raises:
    FileNotFoundError, PermissionError: the file or a shard cannot be read.
    ValueError: it is not a checkpoint, damaged, or holds more than tensors.
  """
  copy = Copy(place(path))
  path = copy.path
  if path.is_dir():
    file = _in_folder(path)
  else:
    file = path
    shard = re.search(r'-(\d{5})-of-(\d{5})\.(bin|safetensors)$', file.name)
    if shard and shard[2] != '00001':
      raise UserError(
        f'{path} is part {int(shard[1])} of {int(shard[2])}. Give the folder instead'
      )
  read_any = _read_shards if file.name.endswith('.index.json') else _read_file
  checkpoint = read_any(file, key)
  config = file.parent / 'config.json'
  if file.name.startswith('open_clip') or not config.is_file():
    config = file.parent / open_clip.FILE
  settings = None
  if (file.name in FOLDER_FILES or path.is_dir()) and config.is_file():
    settings = read_json(config)
    if not isinstance(settings, dict):
      raise UserError(f'{config} holds no settings by name; download it again')
    settings |= _beside(file.parent, pixels=config.name == 'config.json')
  return dataclasses.replace(checkpoint, path=path, config=settings, copy=copy)


def _beside(folder: pathlib.Path, *, pixels: bool) -> dict[str, Any]:
  """Returns what stands beside the settings: pixels and tokenizer, by file name."""
  described, tokenizer = allowed.TOKENIZER
  names = (allowed.PROCESSOR, described) if pixels else (described,)
  found = {
    name: read_json(folder / name) for name in names if (folder / name).is_file()
  }
  if (folder / tokenizer).is_file():
    found[tokenizer] = attached.attach((folder / tokenizer).read_bytes())
  return found


def _in_folder(folder: pathlib.Path) -> pathlib.Path:
  for name in FOLDER_FILES:
    if (folder / name).is_file():
      return folder / name
  present = sorted(entry.name for entry in folder.iterdir()) or ['nothing']
  raise FileNotFoundError(
    f'{folder} has none of {", ".join(FOLDER_FILES)}; there is {shorten(present)}. '
    'Give the path of a file, or of a folder as it was downloaded from Hugging Face'
  )


def _read_file(path: pathlib.Path, key: str | None) -> Checkpoint:
  """Reads one file, by its content."""
  with open_file(path) as file:
    head = file.read(512)
  if is_safetensors(head):
    tensors, notes = read_safetensors(path)
    check_tensors(tensors, str(path))
    if key is not None:
      raise UserError(f'{path} is a safetensors file, which has no entries; omit key')
    return Checkpoint(path, Tensors(tensors), (path,), 'safetensors', notes=notes)
  loaded = _load(path, head)
  tensors, skipped, entry = find(loaded, where=str(path), key=key)
  return Checkpoint(path, Tensors(tensors), (path,), loaded.container, entry, skipped)


def _load(path: pathlib.Path, head: bytes) -> Loaded:
  """Reads what a pickled file holds, by its first bytes."""
  if head.startswith(b'PK\3\4'):
    return read_zip(path)
  if STREAM.match(head):
    return read_stream(path)
  if not head:
    raise UserError(f'{path} is empty; a checkpoint was expected. Download it again')
  for pattern, kind, advice in MISTAKEN:
    if re.match(pattern, head, re.I | re.S):
      raise UserError(f'{path} is {kind}, not a checkpoint. {advice}')
  # Without an instruction for the protocol, only the old text form is a pickle.
  if head[:1] == b'\x80' or (path.suffix == '.pkl' and head[:1] in b'(}c]'):
    with open_file(path) as file:
      size = path.stat().st_size
      root = Unpickler(file, size=size, where=str(path), path=path).load()
    return Loaded(root, 'pickle')
  raise UserError(
    f'{path} is not a checkpoint that is known: it begins with {head[:8]!r}. Files of '
    'torch.save and torch.jit.save, safetensors and detectron2 pickles are read'
  )


def _read_shards(index: pathlib.Path, key: str | None) -> Checkpoint:
  """Reads the parts that a Hugging Face index lists."""
  with open_file(index):
    pass
  table = read_json(index)
  names = table.get('weight_map') if isinstance(table, dict) else None
  if not isinstance(names, dict) or not all(
    isinstance(name, str) and pathlib.PurePath(name).name == name and '\\' not in name
    for name in names.values()
  ):
    raise UserError(
      f'{index} has no weight_map from tensors to files beside it. Download it again'
    )
  files = tuple(index.parent / name for name in sorted(set(names.values())))
  missing = [path.name for path in files if not path.is_file()]
  if missing:
    raise FileNotFoundError(
      f'{index.parent}: {len(missing)} of {len(files)} parts that {index.name} lists '
      f'are missing: {shorten(missing)}. Download them into the same folder'
    )
  parts = {path.name: _read_file(path, key) for path in files}
  absent = [name for name, part in names.items() if name not in parts[part].tensors]
  if absent:
    raise UserError(
      f'{index} lists {len(names)} tensors, {len(absent)} of which are not in their '
      f'parts: {shorten(absent)}. Download the folder again'
    )
  skipped: dict[str, str] = {}
  for file, part in parts.items():
    skipped.update(part.skipped)
    for name in part.tensors:
      if name not in names:
        skipped[name] = f'tensor of {file} that {index.name} does not list'
  first = next(iter(parts.values()))
  return dataclasses.replace(
    first,
    path=index,
    tensors=Tensors(
      {name: parts[part].tensors.entry(name) for name, part in names.items()}
    ),
    files=files,
    container=f'{first.container} in parts',
    skipped=skipped,
  )
