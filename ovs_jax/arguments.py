"""What is typed after `python -m ovs_jax.main`, and in a line what is wrong with it."""

import dataclasses
import pathlib
import re
import sys
import traceback
import typing
from typing import Any

from absl import flags

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.limits import describe, hints
from ovs_jax.core.lookup import did_you_mean
from ovs_jax.settings import Settings

_FILE = re.compile(r'--?config(?:=(.*))?')
_KEY = re.compile(r'--?(?:no)?config\.([^=]+)(?:=(.*))?')


def parse(argv: list[str]) -> list[str]:
  """Reads all flags; ends the program with one line if that cannot be.

  Returns:
    What is no flag.
  """
  try:
    argv = with_packaged(argv)
    check_arguments(argv)
    return flags.FLAGS(argv)
  except (flags.Error, UserError, OSError, AttributeError, KeyError) as error:
    message = _own_message(error)
    if message is None:  # a fault of a configuration file, which its author looks for
      traceback.print_exc()
      message = str(error).strip().splitlines()[-1]
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


def configs_directory() -> pathlib.Path:
  """Returns where the configurations are: of a checkout, or of what was installed."""
  package = local(__file__).parent
  installed = package / 'packaged' / 'configs'
  return installed if installed.is_dir() else package.parent / 'configs'


def with_packaged(argv: list[str]) -> list[str]:
  """Completes names of configurations: `--config=quickstart:smoke` from anywhere.

  What is a file is left as it is. Makes `configs` importable, as its files expect.
  """
  folder = configs_directory()
  if str(folder.parent) not in sys.path:
    sys.path.append(str(folder.parent))
  found = list(argv)
  for i, argument in enumerate(argv):
    flag = _FILE.fullmatch(argument)
    if flag is None:
      continue
    alone = flag[1] is None  # --config NAME
    given = ''.join(argv[i + 1 : i + 2]) if alone else flag[1]
    name, colon, rest = given.partition(':')
    path = folder / f'{name.removeprefix("configs/").removesuffix(".py")}.py'
    if name and not local(name).is_file() and path.is_file():
      found[i + alone] = f'{"" if alone else "--config="}{path}{colon}{rest}'
  return found


def check_arguments(argv: list[str]) -> None:
  """Looks for the configuration's file, and for every key that is changed.

  Raises:
    UserError: there is no such file or key; names the nearest.
  """
  for argument, following in zip(argv, [*argv[1:], ''], strict=True):
    if file := _FILE.fullmatch(argument):
      _check_file(following if file[1] is None else file[1])
    elif key := _KEY.fullmatch(argument):
      _check_key(key[1])


def _check_file(given: str) -> None:
  path = local(given.partition(':')[0])
  if path.is_file():
    return
  known = [f'configs/{file.name}' for file in sorted(configs_directory().glob('*.py'))]
  known += sorted(str(file) for file in path.parent.glob('*.py'))
  near = did_you_mean(str(path), known)
  raise UserError(f'--config={given}: there is no file {path}.{near}')


def _check_key(key: str) -> None:
  """Follows a key through the sections; below what has no sections all is its own."""
  kind: Any = Settings
  parts = key.split('.')
  for i, part in enumerate(parts):
    if not dataclasses.is_dataclass(kind):
      return
    section = '.'.join(['config', *parts[:i]])
    known = hints(kind)
    if part not in known:
      raise UserError(f'--config.{key}: {section} has no {part!r}.{_near(part, known)}')
    kind = known[part]
  if dataclasses.is_dataclass(kind):
    raise UserError(
      f'--config.{key}: config.{key} is a section; change one of its keys, such as '
      f'--config.{key}.{next(iter(hints(kind)))}='
    )


def _near(part: str, known: dict[str, Any]) -> str:
  """The nearest key of a section, or a section that has the key."""
  owners = [k for k, kind in known.items() if dataclasses.is_dataclass(kind)]
  owners = [k for k in owners if part in hints(known[k])]
  return f' Did you mean {owners[0]}.{part}?' if owners else did_you_mean(part, known)


def declared(key: str) -> Any:
  """Returns the annotation of a key, such as 'train.steps'; None if it has none."""
  kind: Any = Settings
  parts = key.split('.')
  while parts:
    if dataclasses.is_dataclass(kind):
      kind = hints(kind).get(parts.pop(0))
    elif 'Settings' in str(kind):  # the stages of a pipeline
      kind = typing.get_args(kind)[1]
      parts.pop(0)
    else:
      return None
  return kind


def _own_message(error: BaseException) -> str | None:
  """What a mistake's message is, in one line; None for what is no user's mistake."""
  found, cause = None, error
  while cause is not None:
    # What ml_collections raises for another has its traceback in the message.
    found = cause if isinstance(cause, UserError) else found
    cause = cause.__cause__ or cause.__context__
  if found is not None:
    return str(found)
  text = str(error)
  wrong = re.match(r'flag --config\.([^=]+)=(.*?): ', text, re.DOTALL)
  if wrong and declared(wrong[1]) is not None:
    expected = describe(declared(wrong[1]))
    return f'config.{wrong[1]} is {wrong[2]!r}, expected {expected}'
  if isinstance(error, (AttributeError, KeyError)):
    near = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', text)
    if near is None:
      return f'the configuration has no key {text}'
    return f'the configuration has no {near[2]!r}. Did you mean {near[1]!r}?'
  return None if 'Traceback' in text else ' '.join(text.split())


def listed(text: str) -> tuple[str, ...]:
  """Returns what stands between commas, of one flag."""
  return tuple(filter(None, map(str.strip, text.split(','))))


def numbers(text: str) -> tuple[float, ...]:
  """Returns the numbers between commas, of one flag."""
  return tuple(map(float, listed(text)))
