"""PyTorch's containers: zip archives (also TorchScript's) and the older stream."""

import ast
import contextlib
import dataclasses
import io
import pathlib
import re
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ovs_jax.convert.pickle_names import STORAGES, Name
from ovs_jax.convert.storage import FileBytes, Storage, open_file
from ovs_jax.convert.unpickle import Unpickler

# First value of the stream that `torch.save` wrote before version 1.6.
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

# Compressed archives may unpack to this many times the size of the file, and more.
MAX_RATIO = 20
MAX_EXTRA = 2**24

AGAIN = 'Download or copy the file again'


@dataclasses.dataclass(frozen=True)
class Loaded:
  """What a file holds.

  Attributes:
    root: the pickled object.
    container: the kind of file.
    registered: for a TorchScript class, the names of its parameters and buffers, or
      None if the archive does not tell.
  """

  root: Any
  container: str
  registered: Callable[[str], set[str] | None] = lambda name: None


@dataclasses.dataclass(frozen=True)
class _Compressed:
  """A compressed entry of an archive."""

  path: pathlib.Path
  name: str
  size: int

  def read(self, start: int, count: int) -> UInt8[np.ndarray, ' n']:
    """Returns a copy of `count` bytes from `start` on; unpacks what is before too."""
    with _damaged(self.path), zipfile.ZipFile(self.path) as archive:
      with archive.open(self.name) as file:
        file.seek(start)
        data = file.read(count)
    if len(data) != count:
      raise ValueError(f'{self.path}: {self.name} is shorter than declared. {AGAIN}')
    return np.frombuffer(data, np.uint8).copy()


# What `zipfile` raises about archives that are not as they should be.
_DAMAGES = (
  EOFError,
  OSError,
  RuntimeError,  # encrypted, or compressed in a way that is not known
  struct.error,
  UnicodeDecodeError,
  zipfile.BadZipFile,
  zlib.error,
)


@contextlib.contextmanager
def _damaged(path: pathlib.Path) -> Iterator[None]:
  """Turns what `zipfile` raises into one kind of error that names the file."""
  try:
    yield
  except (FileNotFoundError, PermissionError):
    raise
  except _DAMAGES as error:
    raise ValueError(
      f'{path} begins like a zip archive of PyTorch, but is cut off or damaged '
      f'({error}). {AGAIN}'
    ) from error


class _Archive:
  """The entries of a zip archive, checked against the file that holds them."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self.bytes = path.stat().st_size
    with _damaged(path), open_file(path) as file, zipfile.ZipFile(file) as archive:
      infos = archive.infolist()
    self.entries = {info.filename: info for info in infos}
    self._check(infos)
    self.prefix = self._find_prefix()

  def _check(self, infos: list[zipfile.ZipInfo]) -> None:
    """Refuses archives that unpack to more than a checkpoint could."""
    packed = sum(info.compress_size for info in infos)
    unpacked = sum(info.file_size for info in infos)
    limit = MAX_RATIO * self.bytes + MAX_EXTRA
    stored = all(
      info.compress_size == info.file_size
      for info in infos
      if info.compress_type == zipfile.ZIP_STORED
    )
    if packed > self.bytes or unpacked > limit or not stored:
      raise ValueError(
        f'{self.path} of {self.bytes} bytes declares entries of {unpacked} bytes '
        f'({packed} packed). PyTorch stores tensors as they are; this looks like a '
        'damaged file or a zip bomb and is not unpacked'
      )
    odd = sorted(i.filename for i in infos if i.flag_bits & 1)
    if odd or len(self.entries) != len(infos):
      raise ValueError(
        f'{self.path} has entries that are encrypted ({", ".join(odd) or "none"}) or '
        f'occur twice ({len(infos) - len(self.entries)}). Save the checkpoint anew '
        'with torch.save'
      )

  def _find_prefix(self) -> str:
    found = [n for n in self.entries if re.fullmatch(r'([^/]*/)?data\.pkl', n)]
    if len(found) == 1:
      return found[0].removesuffix('data.pkl')
    kind = 'is a zip archive, but not of torch.save'
    if any(name.endswith('.npy') for name in self.entries):
      kind = 'is a NumPy archive (.npz)'
    elif any(name.endswith('model.json') for name in self.entries):
      kind = 'is a TorchScript archive from before PyTorch 1.4'
    elif any('/.data/python_version' in name for name in self.entries):
      kind = 'is an archive of torch.package'
    raise ValueError(
      f'{self.path} {kind}: {len(found)} entries data.pkl, 1 was expected. Give a file '
      'of torch.save(model.state_dict(), path), or .safetensors'
    )

  def text(self, name: str) -> str | None:
    """Returns a small entry as text; None if there is none."""
    if self.prefix + name not in self.entries:
      return None
    data = self.entry(name)
    return bytes(data.read(0, data.size)).decode('utf-8', 'replace')

  def entry(self, name: str) -> FileBytes | _Compressed:
    """Returns where the bytes of an entry are."""
    info = self.entries[self.prefix + name]
    if info.compress_type != zipfile.ZIP_STORED:
      return _Compressed(self.path, info.filename, info.file_size)
    header = b''
    if 0 <= info.header_offset < self.bytes:
      with open_file(self.path) as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if len(header) < 30 or header[:4] != b'PK\3\4':
      raise ValueError(
        f'{self.path}: no entry where its directory says {name} is. {AGAIN}'
      )
    lengths = struct.unpack('<HH', header[26:30])  # of name and padding
    start = info.header_offset + 30 + sum(lengths)
    if start + info.file_size > self.bytes:
      raise ValueError(f'{self.path}: {name} reaches beyond its end. {AGAIN}')
    return FileBytes(self.path, start, info.file_size)


def read_zip(path: pathlib.Path) -> Loaded:
  """Reads the object of a zip archive; its tensors stay in the file.

  Raises:
    ValueError: it is damaged, not of PyTorch, or holds more than tensors.
  """
  archive = _Archive(path)
  script = any(name.startswith(f'{archive.prefix}code/') for name in archive.entries)
  order = (archive.text('byteorder') or 'little').strip()
  if order not in ('little', 'big'):
    raise ValueError(f'{path}: byte order {order!r}, little or big was expected')

  def persistent(identifier: Any) -> Storage:
    kind, key, nbytes = _identify(identifier)
    storage = Storage(key, STORAGES[kind], nbytes, order == 'big')
    if f'{archive.prefix}data/{key}' in archive.entries:
      storage.data = archive.entry(f'data/{key}')
    return storage

  pickled = archive.entry('data.pkl')
  data = bytes(pickled.read(0, pickled.size))
  root = Unpickler(
    io.BytesIO(data),
    size=len(data),
    where=str(path),
    persistent=persistent,
    script=script,
  ).load()
  if not script:
    return Loaded(root, 'PyTorch zip archive')
  return Loaded(root, 'TorchScript archive', lambda name: _registered(archive, name))


def _identify(identifier: Any) -> tuple[str, str, int]:
  """Returns class, key and bytes of a storage."""
  if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
    raise ValueError('a storage is not identified by five values')
  what, kind, key, _, count = identifier[:5]
  if what != 'storage' or not isinstance(kind, Name) or kind.full not in STORAGES:
    raise ValueError('something else than a storage is referred to')
  if not isinstance(key, str) or type(count) is not int or count < 0:
    raise ValueError('a storage has no name or no size')
  dtype = STORAGES[kind.full]
  return kind.full, key, count * (dtype.itemsize if dtype else 1)


def _registered(archive: _Archive, name: str) -> set[str] | None:
  """Returns what a TorchScript class declares as parameters and buffers."""
  *module, kind = name.split('.')
  code = archive.text(f'code/{"/".join(module)}.py') or ''
  lists = r'\s+__parameters__ = (\[[^\]]*\])\s+__buffers__ = (\[[^\]]*\])'
  found = re.search(rf'class {re.escape(kind)}\(Module\):{lists}', code)
  if not found:
    return None
  try:
    return {name for part in found.groups() for name in ast.literal_eval(part)}
  except (SyntaxError, ValueError):
    return None


def read_stream(path: pathlib.Path) -> Loaded:
  """Reads the object of a file of torch.save before version 1.6.

  Raises:
    ValueError: it is damaged, or holds more than tensors.
  """
  storages: dict[str, Storage] = {}
  views: list[tuple[Storage, int]] = []

  def persistent(identifier: Any) -> Storage:
    kind, key, nbytes = _identify(identifier)
    root = storages.setdefault(key, Storage(key, STORAGES[kind], nbytes))
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
      return root
    _, offset, count = view
    item = root.dtype.itemsize if root.dtype else 1
    part = Storage(key, root.dtype, count * item)
    views.append((part, offset * item))
    return part

  size = path.stat().st_size
  with open_file(path) as file:

    def load(**more: Any) -> Any:
      return Unpickler(file, size=size, where=str(path), **more).load()

    header = load(), load()
    load()  # the machine that wrote it; values are little-endian on all of them
    if header != (MAGIC, PROTOCOL):
      raise ValueError(
        f'{path} is of version {reprlib.repr(header[1])} of the stream of torch.save, '
        f'{PROTOCOL} was expected. Save it anew with a current PyTorch'
      )
    root, keys = load(persistent=persistent), load()
    _place(path, file, keys if isinstance(keys, list) else [], storages)
  for part, offset in views:
    data = storages[part.key].data
    if data is not None and 0 <= offset <= offset + part.nbytes <= data.size:
      part.data = FileBytes(path, data.offset + offset, part.nbytes)
  return Loaded(root, 'PyTorch stream')


def _place(
  path: pathlib.Path,
  file: io.BufferedIOBase,
  keys: list[Any],
  storages: dict[str, Storage],
) -> None:
  """Finds the values of each storage, in the order of `keys`."""
  size = path.stat().st_size
  for key in keys:
    if not isinstance(key, str) or key not in storages:
      raise ValueError(
        f'{path} lists a storage {reprlib.repr(key)} that no tensor has. {AGAIN}'
      )
    storage = storages[key]
    item = storage.dtype.itemsize if storage.dtype else 1
    header = file.read(8)
    start = file.tell()
    count = struct.unpack('<q', header)[0] if len(header) == 8 else -1
    if start + storage.nbytes > size or count < 0:
      raise ValueError(
        f'{path} is cut off: storage {key!r} should end at byte '
        f'{start + storage.nbytes}, the file has {size}. {AGAIN}'
      )
    if count * item != storage.nbytes:
      raise ValueError(
        f'{path}: storage {key!r} has {count} elements, its tensors expect '
        f'{storage.nbytes // item}. {AGAIN}'
      )
    storage.data = FileBytes(path, start, storage.nbytes)
    file.seek(start + storage.nbytes)
