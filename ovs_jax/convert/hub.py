"""Models by name: fetched once, converted, and opened at once the next time.

A name is one of the catalogue (`catalogue.PUBLISHED`), or hf://ORG/NAME[@REVISION] of
the Hugging Face hub. What comes is converted into a folder of the cache; nothing in a
repository is executed, and of its files only settings and tensors are fetched.
"""

import contextlib
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ovs_jax.convert import allowed, catalogue, exchange, share
from ovs_jax.convert.download import cache_directory, fetch, file_sha256, locked
from ovs_jax.convert.reader import FOLDER_FILES
from ovs_jax.core import attached
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local, place
from ovs_jax.core.lookup import did_you_mean

_SCHEME = 'hf://'
_RESTRICTED = re.compile(r'\bNC\b|non-?commercial|apple|research', re.I)
_ADDRESS = re.compile(r'hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?')
# Beside the tensors; the last is the one of models that `share` wrote.
_SETTINGS = ('config.json', 'open_clip_config.json', 'preprocessor_config.json')
_SETTINGS = (*_SETTINGS, share.FILE, *allowed.TOKENIZER)
_SAFE = tuple(name for name in FOLDER_FILES if 'safetensors' in name)


def located(given: Path, *, accept_licence: bool = False) -> Path:
  """Returns the directory of a checkpoint that is given as such, or by a name.

  Args:
    given: a directory or an address, as it is returned; or a name.
    accept_licence: whether models may be fetched that are not free for all uses.

  Raises:
    UserError: the name is no model's that can be read here, or its licence has to be
      accepted; or what came is damaged.
    OSError: it cannot be fetched.
  """
  text = os.fspath(given)
  if text.startswith(_SCHEME):
    match = _ADDRESS.fullmatch(text)
    if match is None:
      raise UserError(
        f'{text} is no model of the hub; expected hf://ORG/NAME or hf://ORG/NAME@REVISION'
      )
    return _of_hub(match[1], match[2] or 'main', None, accept_licence)
  # Other addresses are those of directories, or nothing that is known here.
  if '://' in text or place(text).exists():
    return given
  name = catalogue.named(text)
  if name is None:
    # What has no folder in it, and is not there, may be a misspelt name.
    hint = '' if os.sep in text else did_you_mean(text, _names())
    if hint:
      raise UserError(f'{text} is neither a directory nor the name of a model.{hint}')
    return given
  item = catalogue.PUBLISHED[name]
  if item.repository:
    return _of_hub(item.repository, 'main', item, accept_licence)
  return _of_file(name, catalogue.find(name), accept_licence)


def _names() -> list[str]:
  found = [x.repository.rpartition('/')[2] for x in catalogue.PUBLISHED.values()]
  return [*catalogue.PUBLISHED, *filter(None, found)]


def models_directory() -> pathlib.Path:
  """Returns where converted models are kept: below $OVS_JAX_CACHE."""
  return cache_directory().parent / 'models'


def _of_file(name: str, item: catalogue.Published, accepted: bool) -> pathlib.Path:
  target = models_directory() / re.sub(r'[^\w.@-]+', '_', name)
  with _once(target) as missing:
    if missing:
      check_licence(name, item.licence, accepted)
      path = fetch(item.place, cache_directory() / item.file, sha256=item.sha256)
      exchange.convert(path, target, source=item.family)
  return target


def _of_hub(
  repository: str, revision: str, item: catalogue.Published | None, accepted: bool
) -> pathlib.Path:
  name = f'{repository}@{revision}'.replace('/', '--')
  licence, family = (item.licence, item.family) if item else (None, 'auto')
  with _once(target := models_directory() / name) as missing:
    if missing:
      folder = download(repository, revision, licence=licence, accepted=accepted)
      if (folder / share.FILE).is_file():
        share.read(folder, target)
      else:
        exchange.convert(folder, target, source=family)
  return target


@contextlib.contextmanager
def _once(target: pathlib.Path) -> Iterator[bool]:
  """Yields whether a model is missing, to one process after the other."""
  if target.is_dir():
    yield False
    return
  target.parent.mkdir(parents=True, exist_ok=True)
  with locked(target.with_name(f'.{target.name}.lock')):
    yield not target.is_dir()


def check_licence(name: str, licence: str, accepted: bool) -> None:
  """Tells a licence; one that restricts uses has to be accepted.

  Raises:
    UserError: it does, and was not.
  """
  print(f'{name}: licence {licence}', file=sys.stderr, flush=True)
  if not accepted and _RESTRICTED.search(licence):
    raise UserError(
      f'the licence of {name} ({licence}) restricts what it may be used for; read it, '
      'then add --accept-licence (accept_licence=True), once'
    )


def download(
  repository: str,
  revision: str = 'main',
  *,
  licence: str | None = None,
  accepted: bool = False,
) -> pathlib.Path:
  """Fetches settings and tensors of a repository into the hub's own cache.

  HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and tokens are as everywhere.

  Args:
    repository: ORG/NAME.
    revision: branch, tag or commit.
    licence: of the model; None takes what the repository says.
    accepted: whether one that restricts uses has been accepted.

  Raises:
    UserError: there is no such repository, it is not open to this user, has no files
      that are read here, or what came is damaged.
    OSError: it cannot be reached, or there is no space.
  """
  hub = _package()
  where = f'{repository}@{revision}'
  with _answers(hub, repository, revision):
    if hub.constants.HF_HUB_OFFLINE:
      return _kept(hub, repository, revision)
    info = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    said = getattr(info.card_data, 'license', None) if info.card_data else None
    check_licence(where, licence or str(said or 'not stated'), accepted)
    files = {file.rfilename: file for file in info.siblings or []}
    wanted = _choose(where, list(files))
    size = sum(files[name].size or 0 for name in wanted)
    _check_space(where, size)
    print(f'fetching {len(wanted)} files, {size / 1e6:,.0f} MB', file=sys.stderr)
    folder = local(
      hub.snapshot_download(repository, revision=revision, allow_patterns=wanted)
    )
  for name in wanted:
    _check_hash(where, folder / name, files[name].lfs)
  return folder


def _kept(hub: Any, repository: str, revision: str) -> pathlib.Path:
  """What the hub's cache has from earlier."""
  for kind in ('*.safetensors*', '*.bin*'):
    folder = local(
      hub.snapshot_download(
        repository,
        revision=revision,
        allow_patterns=[*_SETTINGS, 'tokenizer_*.json', kind],
        local_files_only=True,
      )
    )
    if any((folder / name).is_file() for name in (share.TENSORS, *FOLDER_FILES)):
      return folder
  raise hub.errors.LocalEntryNotFoundError('the cache has its settings alone')


def _check_hash(where: str, path: pathlib.Path, stated: Any) -> None:
  """Deletes a large file that is not what the hub says it is."""
  if stated and file_sha256(path) != stated.sha256:
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise UserError(
      f'{where} gave a {path.name} whose sha256 is not {stated.sha256}, as it should '
      'be; it was deleted. Try again; something on the way may replace it'
    )


def _choose(where: str, names: list[str]) -> list[str]:
  """The files that are read: safetensors rather than pickles, whole or in parts."""
  known = (share.TENSORS, *_SAFE, *FOLDER_FILES)
  tensors = next((name for name in known if name in names), None)
  if tensors is None:
    few = ', '.join(sorted(names)[:6]) or 'nothing'
    raise UserError(
      f'{where} has none of {", ".join(FOLDER_FILES)}; there is {few}. It is another '
      'kind of model, or a file to fetch by hand and convert with --input='
    )
  found = [name for name in _SETTINGS if name in names] + [tensors]
  found += [x for x in names if attached.is_one(x) and x not in found]
  if tensors.endswith('.index.json'):
    stem, _, kind = tensors.removesuffix('.index.json').rpartition('.')
    part = re.compile(rf'{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{kind}')
    found += [name for name in names if part.fullmatch(name)]
  return found


def _package() -> Any:
  try:
    import huggingface_hub
    from huggingface_hub import constants, errors  # noqa: F401
  except ImportError as error:
    raise UserError(
      'models of the Hugging Face hub need the package huggingface_hub, which is not '
      'installed: pip install huggingface_hub. Or fetch the files elsewhere, and '
      'convert the folder with python -m ovs_jax.convert --input='
    ) from error
  return huggingface_hub


@contextlib.contextmanager
def _answers(hub: Any, repository: str, revision: str) -> Iterator[None]:
  """Turns what the hub's package raises into one line."""
  errors, where = hub.errors, f'{repository}@{revision}'
  try:
    yield
  except errors.GatedRepoError as error:
    raise UserError(
      f'{where} is given only to those who asked for it: accept its terms at '
      f'https://huggingface.co/{repository}, then log in with "hf auth login"'
    ) from error
  except errors.RepositoryNotFoundError as error:
    raise UserError(
      f'{where} is not there, or private: check the spelling of ORG/NAME, or log in '
      'with "hf auth login"'
    ) from error
  except errors.RevisionNotFoundError as error:
    raise UserError(
      f'{repository} has no branch, tag or commit {revision!r}'
    ) from error
  except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
    raise OSError(
      f'{where} is not in the cache, and there is no network (or HF_HUB_OFFLINE is '
      'set); run the same command once with a network'
    ) from error
  except UserError:
    raise
  except (OSError, hub.utils.HfHubHTTPError, ValueError, RuntimeError) as error:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise OSError(
      f'cannot fetch {where} ({first}); what came is kept, run the same command again '
      'to go on'
    ) from error


def _check_space(where: str, size: int) -> None:
  folder = models_directory()
  folder.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(folder).free
  if free < 2 * size:
    raise OSError(
      f'{folder} has {free / 1e6:,.0f} MB free, {where} needs {2 * size / 1e6:,.0f} MB '
      '(as it comes, and converted); set OVS_JAX_CACHE to another disk'
    )


def push(directory: Path, name: str, *, licence: str, private: bool) -> str:
  """Shares a checkpoint; arguments and errors are those of `Segmenter.push`.

  Returns:
    The address of the repository.
  """
  hub = _package()
  with tempfile.TemporaryDirectory(prefix='ovs_jax_') as folder:
    path = share.write(
      directory, local(folder) / 'model', address=f'{_SCHEME}{name}', licence=licence
    )
    with _answers(hub, name, 'main'):
      api = hub.HfApi()
      api.create_repo(name, private=private, exist_ok=True)
      api.upload_folder(repo_id=name, folder_path=path, ignore_patterns=['.*'])
  return f'{_SCHEME}{name}'
