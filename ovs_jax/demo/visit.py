"""What happens when one user of the page sends a photo, asks, or takes results home."""

import dataclasses
import pathlib
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local
from ovs_jax.demo import view
from ovs_jax.demo.asking import Asked, read_asked
from ovs_jax.demo.desk import Answer, Desk, Photo
from ovs_jax.demo.download import write_zip

BUSY, DONE, ERROR = 'busy', 'done', 'error'


@dataclasses.dataclass(frozen=True)
class Step:
  """What the page shows next.

  Attributes:
    said: one line.
    kind: BUSY, DONE or ERROR.
    view: for the browser, of `view`; None leaves it as it is.
    file: to take home.
  """

  said: str
  kind: str = BUSY
  view: dict[str, Any] | None = None
  file: pathlib.Path | None = None


@dataclasses.dataclass
class Visit:
  """One user's photo and question. It holds no arrays, as many may come.

  Attributes:
    path: the photo.
    asked: what was last looked for in it.
  """

  path: pathlib.Path | None = None
  asked: Asked | None = None


def explained(steps: Callable[..., Iterator[Step]]) -> Callable[..., Iterator[Step]]:
  """Returns the steps with mistakes as lines; those of the program are logged."""

  def run(*given: Any, **options: Any) -> Iterator[Step]:
    try:
      yield from steps(*given, **options)
    except (UserError, OSError) as error:
      yield Step(' '.join(str(error).split()), ERROR)
    except Exception:
      traceback.print_exc()
      yield Step('that failed on our side; the log of this page says why', ERROR)

  return run


@explained
def take(desk: Desk, visit: Visit, path: Path, folder: Path) -> Iterator[Step]:
  """Takes a photo and shows it.

  Args:
    desk: the model's.
    visit: of the user; it has the photo afterwards.
    path: as the browser tells it.
    folder: the only one that photos are taken from.
  """
  sent = local(path).resolve()
  if not sent.is_relative_to(local(folder).resolve()) or not sent.is_file():
    raise UserError('that file was not sent to this page; choose it again')
  yield Step(f'reading {sent.name}')
  photo = desk.photo(sent)
  visit.path, visit.asked = sent, None
  yield Step(f'{sent.name} is here: now say what to look for', DONE, view.shown(photo))


@explained
def look(desk: Desk, visit: Visit, names: str, background: str) -> Iterator[Step]:
  """Looks for names in the user's photo.

  Args:
    desk: the model's.
    visit: of the user; it has the question afterwards.
    names: as typed.
    background: as typed.
  """
  photo = _photo(desk, visit)
  asked = read_asked(names, background, desk.limits)
  what = 'looking for the names'
  if not desk.is_encoded(photo):
    what = 'looking at the photo; this is done once, other names are quick then'
  began = time.monotonic()
  answer = yield from _waiting(desk.ask(photo, asked), what)
  visit.asked = asked
  found = view.packed(answer, threshold=desk.first_threshold)
  spent = time.monotonic() - began
  count = len(answer.result.segments())
  said = f'{count} of {len(asked.classes)} names found in {spent:.1f} s'
  yield Step('. '.join([said, *asked.notes]), DONE, found)


@explained
def take_home(
  desk: Desk,
  visit: Visit,
  folder: pathlib.Path,
  *,
  chosen: Sequence[str],
  threshold: float,
  alpha: float,
) -> Iterator[Step]:
  """Writes what was found as a zip file.

  Args:
    desk: the model's.
    visit: of the user.
    folder: that gets the file.
    chosen: of `download.CHOICES`.
    threshold: below which pixels get no name, 0..1.
    alpha: opacity of the overlay, 0..1.
  """
  photo = _photo(desk, visit)
  if visit.asked is None:
    raise UserError('there is nothing to download yet; say what to look for first')
  run = desk.ask(photo, visit.asked, threshold=threshold)
  answer = yield from _waiting(run, 'writing the files')
  path = write_zip(answer, folder, chosen, alpha=alpha)
  yield Step(f'{path.name} is ready', DONE, file=path)


def _waiting(
  run: Generator[int, None, Answer], what: str
) -> Generator[Step, None, Answer]:
  """Says what is going on until there is an answer."""
  began = time.monotonic()
  while True:
    try:
      ahead = next(run)
    except StopIteration as end:
      return end.value
    others = f'{ahead} before you; ' if ahead else ''
    yield Step(f'{others}{what} ({time.monotonic() - began:.0f} s)')


def _photo(desk: Desk, visit: Visit) -> Photo:
  if visit.path is None:
    raise UserError('choose a photo first')
  if not visit.path.exists():
    raise UserError(f'{visit.path.name} has been cleared away; send it again')
  return desk.photo(visit.path)
