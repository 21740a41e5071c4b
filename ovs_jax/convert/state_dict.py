"""Finds the tensors of the model in what a checkpoint holds besides them."""

from typing import Any

from ovs_jax.convert.pickle_names import Holder, Name, PickledArray
from ovs_jax.convert.storage import Tensor
from ovs_jax.convert.torch_archive import Loaded
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import shorten

# Where training programs put the model; the rest beside it is skipped.
CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'module')

MAX_DEPTH = 64
MAX_NAMES = 200_000


def find(
  loaded: Loaded, *, where: str, key: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str], str]:
  """Finds the tensors of the model.

  Args:
    loaded: what the file holds.
    where: its name, for errors.
    key: dotted names of the entry with the model; None looks for the usual ones.

  Returns:
    The tensors by name; what was left aside, from the names of other entries to what
    they are; and where in the file the model is, as dotted names, empty if it is all.

  Raises:
    ValueError: there is no model, or more than one, or tensors are damaged.
  """
  skipped: dict[str, str] = {}
  node, prefix = loaded.root, ''
  if key is not None:
    node, prefix = _entry(node, key, where), f'{key}.'
  else:
    while (name := _container(node, prefix, where)) is not None:
      skipped.update({f'{prefix}{k}': _describe(node[k]) for k in node if k != name})
      node, prefix = node[name], f'{prefix}{name}.'
  tensors: dict[str, Tensor] = {}
  if isinstance(node, Holder):
    _walk(node, loaded, where, tensors, skipped)
  elif isinstance(node, dict):
    for name, value in node.items():
      tensor = _as_tensor(value)
      if tensor is None or not isinstance(name, str):
        skipped[f'{prefix}{name}'] = _describe(value)
      else:
        tensors[name] = tensor
  if not tensors:
    raise UserError(_no_model(loaded.root, where, key))
  check_tensors(tensors, where)
  return tensors, skipped, prefix.removesuffix('.')


def _as_tensor(value: Any) -> Tensor | None:
  if isinstance(value, PickledArray):
    return value.tensor
  return value if isinstance(value, Tensor) else None


def _holds_model(value: Any) -> bool:
  """Returns whether a value is a state dict, or has one in a usual place."""
  seen: set[int] = set()  # the same dictionary may be in many places, even in itself
  queue = [value]
  while queue:
    node = queue.pop()
    if isinstance(node, Holder) and node.name.startswith('__torch__.'):
      return True
    if not isinstance(node, dict) or id(node) in seen:
      continue
    seen.add(id(node))
    if any(_as_tensor(v) is not None for k, v in node.items() if isinstance(k, str)):
      return True
    queue += [node.get(name) for name in CONTAINERS]
  return False


def _container(node: Any, prefix: str, where: str) -> str | None:
  """Returns the name under which `node` has the model; None if it is the model."""
  if not isinstance(node, dict) or prefix.count('.') > MAX_DEPTH:
    return None
  found = [name for name in CONTAINERS if _holds_model(node.get(name))]
  if len(found) > 1:
    raise UserError(
      f'{where} has several models: {", ".join(found)}. Say which one to read: '
      f'--key={prefix}{found[0]}'
    )
  return found[0] if found else None


def _entry(node: Any, key: str, where: str) -> Any:
  """Returns the entry called `key`, whose names may themselves have dots."""
  names = [n for n in node if isinstance(n, str)] if isinstance(node, dict) else []
  if key in names:
    return node[key]
  for name in names:
    if key.startswith(f'{name}.'):
      return _entry(node[name], key[len(name) + 1 :], where)
  raise UserError(
    f'{where} has no entry {key!r}; there {"are" if names else "is"} '
    f'{shorten(names or [_describe(node)])}. Choose one of them with --key=, or '
    'none to look for the model'
  )


def _describe(value: Any) -> str:
  """Returns what a skipped value is, in a word or two."""
  tensor = _as_tensor(value)
  if tensor is not None:
    return f'tensor {tensor.shape}'
  if isinstance(value, dict):
    return f'dict of {len(value)}'
  if isinstance(value, list | tuple):
    return f'{type(value).__name__} of {len(value)}'
  if isinstance(value, float | None) or (isinstance(value, int) and abs(value) < 2**64):
    return repr(value)
  if isinstance(value, str) and len(value) <= 40:
    return repr(value)
  if isinstance(value, Name):
    return value.full
  return value.name if isinstance(value, Holder) else type(value).__name__


def _walk(
  root: Holder,
  loaded: Loaded,
  where: str,
  tensors: dict[str, Tensor],
  skipped: dict[str, str],
) -> None:
  """Collects the parameters and buffers of a TorchScript module and of those in it."""
  # Modules may share others, which then appear under each name; but not form circles.
  stack: list[tuple[Holder, str, int]] = [(root, '', 0)]
  registered: dict[str, set[str] | None] = {}
  while stack:
    module, prefix, depth = stack.pop()
    if module.name not in registered:
      registered[module.name] = loaded.registered(module.name)
    own = registered[module.name]
    inside = []
    for name, value in module.state.items():
      full = f'{prefix}{name}'
      if isinstance(value, Holder):
        inside.append((value, f'{full}.', depth + 1))
      elif isinstance(value, Tensor) and (own is None or name in own):
        tensors[full] = value
      elif isinstance(value, Tensor):
        skipped[full] = f'{_describe(value)}, neither parameter nor buffer'
      elif value is not None and not isinstance(value, bool):
        skipped[full] = _describe(value)
    stack += reversed(inside)
    if depth > MAX_DEPTH or len(stack) + len(tensors) + len(skipped) > MAX_NAMES:
      raise UserError(
        f'{where}: its modules contain each other without end, at {prefix!r}. A model '
        'was expected; save it anew with torch.jit.save'
      )


def check_tensors(tensors: dict[str, Tensor], where: str) -> None:
  """Refuses damaged tensors, all of them in one message."""
  found = {name: tensor.problem() for name, tensor in tensors.items()}
  problems = [f'{name} {problem}' for name, problem in found.items() if problem]
  if problems:
    listed = shorten(problems, separator='\n  ')
    raise UserError(
      f'{where}: {len(problems)} of its {len(tensors)} tensors cannot be read. '
      f'Download or copy the file again, or save it anew:\n  {listed}'
    )


def _no_model(root: Any, where: str, key: str | None) -> str:
  """Returns the message for a file without a model in the usual places."""
  if isinstance(root, dict):
    inside = [str(name) for name, value in root.items() if _holds_model(value)]
    hint = f'; with tensors inside: {", ".join(inside)}' if inside else ''
    has = f'its {len(root)} entries are {shorten([*map(str, root)])}{hint}'
  else:
    has = f'it holds {_describe(root)}'
  what = f'entry {key!r}' if key else 'tensors'
  return (
    f'{where} has no state dict in its {what}: {has}. Tensors by name were expected, '
    f'at the top or under {", ".join(CONTAINERS)}; name another entry with --key='
  )
