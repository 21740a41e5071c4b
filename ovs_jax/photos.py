"""Which pictures a command is to read: files, folders and patterns."""

import functools
import glob
import pathlib
from collections.abc import Sequence

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.formats.run import MARK
from ovs_jax.inference.stems import is_result

# Of the files in folders; a file that is named itself may have any.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff', '.gif', '.bmp')
SUFFIXES += ('.heic', '.heif')


def find_photos(
  given: Sequence[str], left_out: list[pathlib.Path] | None = None
) -> dict[pathlib.Path, bool]:
  """Lists the pictures, each once.

  Args:
    given: files; folders, of which the image files are taken, but not those of their
      subfolders; or patterns such as 'photos/*.jpg' and 'photos/**/*.jpg'. A file
      whose name looks like a pattern is taken as it is. Results of this package in
      folders and of patterns are no pictures.
    left_out: gets these results.

  Returns:
    The paths in the order given, those of a folder or pattern sorted; and whether each
    was named itself.

  Raises:
    ValueError: a folder has no image file, or nothing matches a pattern.
  """
  results = left_out if left_out is not None else []
  found: dict[pathlib.Path, bool] = {}
  for text in given:
    path = local(text)
    if path.is_dir():
      inside = _photos(sorted(path.iterdir()), results)
      if not inside:
        raise UserError(
          f'{path} is a directory without image files ({", ".join(SUFFIXES)}); give '
          'images, or a pattern such as "photos/**/*.jpg"'
        )
    elif not path.exists() and glob.has_magic(text):
      files = [local(p) for p in sorted(glob.glob(text, recursive=True))]
      inside = _photos(files, results)
      if not inside and not any(_is_photo(p) for p in files):
        inside = [p for p in files if p.is_file()]
      if not inside:
        raise UserError(f'no file matches {text}; give images, folders or a pattern')
    else:
      found[path] = True
      continue
    for path in inside:
      found.setdefault(path, False)
  return found


def _photos(
  files: Sequence[pathlib.Path], results: list[pathlib.Path]
) -> list[pathlib.Path]:
  """Tells photos from results, which are added to `results`."""
  photos = [path for path in files if _is_photo(path)]
  marked = functools.cache(lambda folder: (folder / MARK).is_file())
  made = [p for p in photos if is_result(p) or any(map(marked, p.absolute().parents))]
  results += made
  made = set(made)
  return [path for path in photos if path not in made]


def _is_photo(path: pathlib.Path) -> bool:
  hidden = path.name.startswith('.')
  return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()
