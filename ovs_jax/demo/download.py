"""An answer as one file to take home: overlay, and the formats of annotation tools."""

import pathlib
import tempfile
import zipfile
from collections.abc import Sequence

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import atomic_path, local
from ovs_jax.demo.desk import Answer
from ovs_jax.formats import FORMATS

OVERLAY = 'overlay'
CHOICES = (OVERLAY, *FORMATS)


def write_zip(
  answer: Answer, folder: pathlib.Path, chosen: Sequence[str], *, alpha: float
) -> pathlib.Path:
  """Writes what was chosen into a zip file.

  Args:
    answer: at the threshold that is wanted.
    folder: that gets the zip file.
    chosen: of `CHOICES`.
    alpha: opacity of the overlay, 0..1.

  Raises:
    ValueError: nothing is chosen, or a format cannot hold the result.
  """
  if not chosen:
    raise UserError('choose at least one format to download')
  photo = answer.photo.path
  if not photo.exists():
    raise UserError(f'{photo.name} has been cleared away; send it again')
  zipped = folder / f'{photo.stem}_segments.zip'
  with tempfile.TemporaryDirectory() as temporary:
    output = local(temporary)
    if formats := [name for name in chosen if name != OVERLAY]:
      answer.result.save(output, photo, ','.join(formats))
    if OVERLAY in chosen:
      drawn = answer.result.overlay(answer.photo.pixels, alpha=alpha)
      drawn.save(output / f'{photo.stem}_overlay.png')
    with atomic_path(zipped) as path:
      with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        for source in sorted(p for p in output.rglob('*') if p.is_file()):
          if not source.name.startswith('.'):
            file.write(source, source.relative_to(output).as_posix())
  return zipped
