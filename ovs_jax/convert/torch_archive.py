"""PyTorch's containers: zip archives (also TorchScript's) and the older stream."""

import ast
import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from ovs_jax.convert.pickle_names import STORAGES, Name
from ovs_jax.convert.storage import Bytes, Storage, file_bytes, open_file
from ovs_jax.convert.unpickle import Unpickler
from ovs_jax.core.errors import UserError

# First value of the stream that `torch.save` wrote before version 1.6.
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

# Compressed archives may unpack to this many times the size of the file, and more.
MAX_RATIO = 20
MAX_EXTRA = 2**24

_AT_ONCE = 2**24  # bytes of a sum

AGAIN = 'Download or copy the file again'

# What zip archives are that are not of `torch.save`, by a name of their entries.
_OTHERS = (
  (r'\.npy$', 'is a NumPy archive (.npz)'),
  (r'model\.json$', 'is a TorchScript archive from before PyTorch 1.4'),
  (r'/\.data/python_version', 'is an archive of torch.package'),
  (r'', 'is a zip archive, but not of torch.save'),
)
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


@contextlib.contextmanager
def _opened(path: pathlib.Path, name: str | None = None) -> Iterator[Any]:
  """Opens an archive or one of its entries; damages become one error with its name."""
  try:
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
      if name is None:
        yield archive
      else:
        with archive.open(name) as entry:
          yield entry
  except (FileNotFoundError, PermissionError):
    raise
  except _DAMAGES as error:
    raise UserError(
      f'{path} begins like a zip archive of PyTorch, but is cut off or damaged '
      f'({error}). {AGAIN}'
    ) from error


class _Archive:
  """The entries of a zip archive, checked against the file that holds them."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self.bytes = path.stat().st_size
    with _opened(path) as archive:
      infos = archive.infolist()
    self.entries = {info.filename: info for info in infos}
    self._check(infos)
    self.prefix = self._find_prefix()

  def _check(self, infos: list[zipfile.ZipInfo]) -> None:
    """Refuses archives that unpack to more than a checkpoint could."""
    packed = sum(info.compress_size for info in infos)
    unpacked = sum(info.file_size for info in infos)
    stored = all(
      info.compress_size == info.file_size
      for info in infos
      if info.compress_type == zipfile.ZIP_STORED
    )
    limit = MAX_RATIO * self.bytes + MAX_EXTRA
    if packed > self.bytes or unpacked > limit or not stored:
      raise UserError(
        f'{self.path} of {self.bytes} bytes declares entries of {unpacked} bytes '
        f'({packed} packed). PyTorch stores tensors as they are; this looks like a '
        'damaged file or a zip bomb and is not unpacked'
      )
    odd = sorted(i.filename for i in infos if i.flag_bits & 1)
    if odd or len(self.entries) != len(infos):
      raise UserError(
        f'{self.path} has entries that are encrypted ({", ".join(odd) or "none"}) or '
        f'occur twice ({len(infos) - len(self.entries)}). Save the checkpoint anew '
        'with torch.save'
      )

  def check_sums(self) -> None:
    """Compares what tensors are stored in with the checksums of the archive.

    `zipfile` does so for what is read through it, such as compressed entries. A sum of
    0 says that none was computed.

    Raises:
      UserError: one differs.
    """
    with _opened(self.path) as archive:  # once: it reads the list of all entries
      for name, info in self.entries.items():
        inside = name.startswith(f'{self.prefix}data/')
        if inside and info.CRC and info.compress_type == zipfile.ZIP_STORED:
          with archive.open(name) as entry:
            while entry.read(_AT_ONCE):
              pass

  def _find_prefix(self) -> str:
    found = [n for n in self.entries if re.fullmatch(r'([^/]*/)?data\.pkl', n)]
    if len(found) == 1:
      return found[0].removesuffix('data.pkl')
    names = '\n'.join(self.entries)
    kind = next(k for clue, k in _OTHERS if re.search(clue, names, re.M))
    raise UserError(
      f'{self.path} {kind}: {len(found)} entries data.pkl, 1 was expected. Give a file '
      'of torch.save(model.state_dict(), path), or .safetensors'
    )

  def __contains__(self, name: str) -> bool:
    return self.prefix + name in self.entries

  def text(self, name: str) -> str:
    """Returns a small entry as text; nothing if there is none."""
    return bytes(self[name].read()).decode('utf-8', 'replace') if name in self else ''

  def __getitem__(self, name: str) -> Bytes:
    """Returns where the bytes of an entry are."""
    info = self.entries[self.prefix + name]
    if info.compress_type != zipfile.ZIP_STORED:
      source = functools.partial(_opened, self.path, info.filename)
      return Bytes(source, 0, info.file_size, f'{self.path}: {name}')
    header = b''
    if 0 <= info.header_offset < self.bytes:
      with open_file(self.path) as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if len(header) < 30 or header[:4] != b'PK\3\4':
      raise UserError(
        f'{self.path}: no entry where its directory says {name} is. {AGAIN}'
      )
    lengths = struct.unpack('<HH', header[26:30])  # of name and padding
    start = info.header_offset + 30 + sum(lengths)
    if start + info.file_size > self.bytes:
      raise UserError(f'{self.path}: {name} reaches beyond its end. {AGAIN}')
    return file_bytes(self.path, start, info.file_size)


def read_zip(path: pathlib.Path) -> Loaded:
  """Reads the object of a zip archive; its tensors stay in the file.

  Raises:
    ValueError: it is damaged, not of PyTorch, or holds more than tensors.
  """
  archive = _Archive(path)
  script = any(name.startswith(f'{archive.prefix}code/') for name in archive.entries)
  order = archive.text('byteorder').strip() or 'little'
  if order not in ('little', 'big'):
    raise UserError(f'{path}: byte order {order!r}, little or big was expected')

  def persistent(identifier: Any) -> Storage:
    storage = _identify(identifier)
    storage.big = order == 'big'
    if f'data/{storage.key}' in archive:
      storage.data = archive[f'data/{storage.key}']
    return storage

  data = bytes(archive['data.pkl'].read())
  root = Unpickler(
    io.BytesIO(data),
    size=len(data),
    where=str(path),
    persistent=persistent,
    script=script,
  ).load()
  archive.check_sums()
  if not script:
    return Loaded(root, 'PyTorch zip archive')
  return Loaded(root, 'TorchScript archive', functools.partial(_registered, archive))


def _identify(identifier: Any) -> Storage:
  """Returns the storage that a reference names."""
  if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
    raise UserError('a storage is not identified by five values')
  what, kind, key, _, count = identifier[:5]
  if what != 'storage' or not isinstance(kind, Name) or kind.full not in STORAGES:
    raise UserError('something else than a storage is referred to')
  if not isinstance(key, str) or type(count) is not int or count < 0:
    raise UserError('a storage has no name or no size')
  storage = Storage(key, STORAGES[kind.full], count)
  storage.nbytes *= storage.itemsize
  return storage


def _registered(archive: _Archive, name: str) -> set[str] | None:
  """Returns what a TorchScript class declares as parameters and buffers."""
  *module, kind = name.split('.')
  code = archive.text(f'code/{"/".join(module)}.py')
  lists = r'\s+__parameters__ = (\[[^\]]*\])\s+__buffers__ = (\[[^\]]*\])'
  found = re.search(rf'class {re.escape(kind)}\(Module\):{lists}', code)
  try:
    parts = map(ast.literal_eval, found.groups()) if found else ()
    return {name for part in parts for name in part} if found else None
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
    found = _identify(identifier)
    root = storages.setdefault(found.key, found)
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
      return root
    _, offset, count = view
    part = Storage(root.key, root.dtype, count * root.itemsize)
    views.append((part, offset * root.itemsize))
    return part

  size = path.stat().st_size
  with open_file(path) as file:

    def load(**more: Any) -> Any:
      return Unpickler(file, size=size, where=str(path), **more).load()

    header = load(), load()
    load()  # the machine that wrote it; values are little-endian on all of them
    if header != (MAGIC, PROTOCOL):
      raise UserError(
        f'{path} is of version {reprlib.repr(header[1])} of the stream of torch.save, '
        f'{PROTOCOL} was expected. Save it anew with a current PyTorch'
      )
    root, keys = load(persistent=persistent), load()
    for key in keys if isinstance(keys, list) else []:
      if not isinstance(key, str) or key not in storages:
        raise UserError(
          f'{path} lists a storage {reprlib.repr(key)} that no tensor has. {AGAIN}'
        )
      _place(path, file, storages[key], size)
  for part, offset in views:
    data = storages[part.key].data
    if data is not None and 0 <= offset <= offset + part.nbytes <= data.size:
      part.data = file_bytes(path, data.offset + offset, part.nbytes)
  return Loaded(root, 'PyTorch stream')


def _place(
  path: pathlib.Path, file: io.BufferedIOBase, storage: Storage, size: int
) -> None:
  """Finds the values of the storage that comes next in a stream of `size` bytes."""
  header = file.read(8)
  start = file.tell()
  count = struct.unpack('<q', header)[0] if len(header) == 8 else -1
  if start + storage.nbytes > size or count < 0:
    raise UserError(
      f'{path} is cut off: storage {storage.key!r} should end at byte '
      f'{start + storage.nbytes}, the file has {size}. {AGAIN}'
    )
  if count * storage.itemsize != storage.nbytes:
    raise UserError(
      f'{path}: storage {storage.key!r} has {count} elements, its tensors expect '
      f'{storage.nbytes // storage.itemsize}. {AGAIN}'
    )
  storage.data = file_bytes(path, start, storage.nbytes)
  file.seek(start + storage.nbytes)
