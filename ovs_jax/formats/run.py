"""Files of several formats, of one photo and of a whole run."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovs_jax.core.files import Place, atomic_path, local
from ovs_jax.formats.format import Format
from ovs_jax.formats.found import Entry, Found

# Of folders whose pictures are results, and no photos.
MARK = '.ovs_jax_results'

Contents = dict[Place, bytes | Iterable[bytes] | pathlib.Path]


def contents(formats: Sequence[Format], found: Found, output: Place) -> Contents:
  """Returns what a photo's own files hold, or what is to be copied to them.

  Raises:
    ValueError: a format cannot hold what was found.
  """
  return {
    output / format_.name / path: content
    for format_ in formats
    for path, content in format_.files(found).items()
  }


def records(
  formats: Sequence[Format], found: Found, *, parts: bool = False
) -> dict[str, Any]:
  """Returns what the files of the run have to know of a photo, by format."""
  every = {f.name: f.record(found, parts=parts) for f in formats}
  return {name: record for name, record in every.items() if record is not None}


def write_into(stack: contextlib.ExitStack, files: Mapping[Place, Any]) -> None:
  """Writes files, which take their places when the stack is left.

  Args:
    stack: left after all that belongs together was written.
    files: `Contents`.
  """
  for place, content in files.items():
    path = stack.enter_context(atomic_path(place))
    if isinstance(content, bytes):
      path.write_bytes(content)
    elif isinstance(content, pathlib.Path):
      shutil.copyfile(content, path)
    else:
      with path.open('wb') as file:
        file.writelines(content)


def finish(
  formats: Sequence[Format],
  output: Place,
  entries: Sequence[Entry],
  names: Sequence[str],
) -> list[Place]:
  """Writes the files of a run; returns them.

  Args:
    formats: whose files.
    output: folder that has a folder of each format.
    entries: the photos.
    names: that were asked for.
  """
  files: Contents = {
    output / format_.name / path: content
    for format_ in formats
    for path, content in format_.finish(entries, names).items()
  }
  with contextlib.ExitStack() as stack:
    write_into(stack, files)
  return list(files)


def mark(formats: Sequence[Format], output: Place) -> None:
  """Says of the formats' folders that their pictures are results.

  Photos are looked for on this machine alone, and so no bucket needs to say it.
  """
  if not isinstance(output, pathlib.Path):
    return
  for format_ in formats:
    folder = output / format_.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_bytes(b'')


def file_names(photos: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """Returns the paths from the innermost folder that has all photos."""
  whole = {photo: os.path.abspath(photo) for photo in photos}
  folders = {os.path.dirname(path) for path in whole.values()}
  top = os.path.commonpath(folders) if folders else ''
  return {
    photo: local(os.path.relpath(path, top)).as_posix() for photo, path in whole.items()
  }
