"""All programs as ONNX models, compared with JAX; runs where jax2onnx is installed.

    python -m ovs_jax.export.onnx_models CHECKPOINT FOLDER text image_64x96 label

Its packages are not those of this one: `launch/onnx_env.sh` makes an environment.
"""

import collections
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.extend
import jax2onnx
import numpy as np
import onnx
import onnxruntime
from jax import export

from ovs_jax.core.files import local, write_json
from ovs_jax.export.programs import TILE, Program, programs, weights_of
from ovs_jax.inference.load import load_system
from ovs_jax.inference.ovseg import OvSegSystem

OPSET = 21


def main(checkpoint: str, folder: str, *names: str) -> None:
  """Writes a model for each program of these names, and `report.json`."""
  system = load_system(checkpoint, kinds=('ovseg',), text_cache='off')
  assert isinstance(system, OvSegSystem)
  system.config.check_one_clip(checkpoint)
  sizes = [name.removeprefix('image_') for name in names if name.startswith('image_')]
  found = [tuple(map(int, size.split('x'))) for size in sizes]
  weights, target = weights_of(system), local(folder)
  given: dict[str, Any] = {'weights': weights, 'random': np.random.default_rng(0)}
  report: dict[str, Any] = {'opset': OPSET, 'models': {}}
  for part in programs(system, found, plain=True):
    if part.name not in names:
      continue
    path = target / f'{part.name}.onnx'
    onnx.save(converted(part, weights), path)
    report['models'][part.name] = {
      'operators': operators(path),
      'largest_error': compared(path, part, given),
    }
  write_json(target / 'report.json', report)


def converted(part: Program, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
  """Returns a program with its weights inside.

  It is traced first: jax2onnx replaces functions of JAX and Flax while it traces, and
  not all of its own take lengths that are open.
  """
  own = {path: weights[path] for path in part.weights}
  scope = export.SymbolicScope(part.constraints)
  inputs = [
    jax.ShapeDtypeStruct(export.symbolic_shape(one.shape, scope=scope), one.dtype)
    for one in part.inputs
  ]
  traced = jax.make_jaxpr(lambda *x: part.function(own, *x))(*inputs)
  call = jax.extend.core.jaxpr_as_fun(traced)
  model = jax2onnx.to_onnx(
    lambda *x: tuple(call(*x)),
    inputs,
    model_name=part.name,
    opset=OPSET,
    input_names=[f'in_{one.name}' for one in part.inputs],
    output_names=[one.name for one in part.outputs],
  )
  choose_between_truths(model.graph, {})
  onnx.checker.check_model(model)
  return model


def choose_between_truths(graph: Any, outer: dict[str, int]) -> None:
  """Writes Where of truth values as And and Or, which onnxruntime has kernels for."""
  types = outer | {
    one.name: one.type.tensor_type.elem_type
    for one in (*graph.value_info, *graph.input, *graph.output)
  }
  types |= {one.name: one.data_type for one in graph.initializer}
  nodes = []
  for node in graph.node:
    for attribute in node.attribute:
      if attribute.HasField('g'):
        choose_between_truths(attribute.g, types)
    if node.op_type != 'Where' or types.get(node.output[0]) != onnx.TensorProto.BOOL:
      nodes.append(node)
      continue
    condition, yes, no = node.input
    name = node.output[0]
    make = onnx.helper.make_node
    nodes += [
      make('And', [condition, yes], [f'{name}/yes']),
      make('Not', [condition], [f'{name}/not']),
      make('And', [f'{name}/not', no], [f'{name}/no']),
      make('Or', [f'{name}/yes', f'{name}/no'], [name]),
    ]
  del graph.node[:]
  graph.node.extend(nodes)


def operators(path: pathlib.Path) -> dict[str, int]:
  """Counts the operators of a model, those in loops and branches too."""
  return dict(sorted(collections.Counter(_operators(onnx.load(path).graph)).items()))


def _operators(graph: Any) -> Iterator[str]:
  for node in graph.node:
    yield node.op_type
    for attribute in node.attribute:
      if attribute.HasField('g'):
        yield from _operators(attribute.g)


def compared(
  path: pathlib.Path, part: Program, given: dict[str, Any]
) -> dict[str, float]:
  """Returns the largest difference from JAX for every output.

  Args:
    path: of the model.
    part: the program.
    given: the weights, random numbers, and the outputs of the programs before.
  """
  inputs = _example(part, given)
  own = {name: given['weights'][name] for name in part.weights}
  expected = jax.jit(part.function)(own, *inputs)
  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  feeds = {f'in_{one.name}': x for one, x in zip(part.inputs, inputs, strict=True)}
  found = session.run(None, feeds)
  if part.name.startswith('image'):
    given['encoded'] = [np.asarray(x) for x in expected]
  return {
    one.name: float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, float))))
    for one, x, y in zip(part.outputs, expected, found, strict=True)
  }


def _example(part: Program, given: dict[str, Any]) -> Sequence[np.ndarray]:
  random = given['random']
  if part.name == 'text':
    return [random.integers(1, 400, (3, 16)).astype(np.int32)]
  if part.name.startswith('image'):
    h, w = (int(side) for side in part.inputs[0].shape.split(',')[:2])
    coarse = random.uniform(0, 255, (-(-h // 16), -(-w // 16), 3))
    photo = np.kron(coarse, np.ones((16, 16, 1)))[:h, :w].astype(np.float32)
    return [photo, np.array([h - 3, w], np.int32)]
  masks = given['encoded'][2]
  names = random.normal(size=(5, given['encoded'][0].shape[1])).astype(np.float32)
  names /= np.linalg.norm(names, axis=1, keepdims=True)
  asked = [*given['encoded'], names, np.arange(5) < 4]
  if part.name == 'maps':
    return asked
  places = [np.eye(n, dtype=np.float32) for n in masks.shape[1:]]
  places = [np.pad(x, ((0, -len(x) % TILE), (0, 0))) for x in places]
  places = [x.reshape(-1, TILE, x.shape[1]) for x in places]
  return [*asked, *places]


if __name__ == '__main__':
  main(*sys.argv[1:])
