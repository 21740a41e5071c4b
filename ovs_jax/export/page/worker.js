// The model's own thread, so that the page answers while it computes.
import * as ort from './ort/ort.wasm.bundle.min.js';
import { parsedNames } from './names.js';
import { Segmenter } from './segment.js';

const binary = new URL('ort/ort-wasm-simd-threaded.wasm', import.meta.url);
ort.env.wasm.wasmPaths = { wasm: binary.href };
// Threads take memory that is shared, which browsers give to isolated pages only.
const threads = Math.min(navigator.hardwareConcurrency || 1, 4);
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1;

const opened = open();
let encoded = null; // the last photo
let held = null; // its number

async function open() {
  const segmenter = await Segmenter.open(ort, read);
  await segmenter.warm();
  return segmenter;
}

async function read(name) {
  const address = new URL(name, import.meta.url);
  let answer = null;
  try {
    answer = await fetch(address);
  } catch {
    // The server is gone; told below.
  }
  if (!answer?.ok) {
    const why = answer ? `the server says ${answer.status}` : 'the server does not answer';
    throw new Error(`${name} cannot be loaded: ${why}. Put the whole folder on the server.`);
  }
  return answer;
}

async function segment({ photo, number, names, shown }) {
  const segmenter = await opened;
  const asked = parsedNames(names, (text) => segmenter.tokenizer.clean(text));
  const begin = performance.now();
  if (photo) {
    held = null;
    encoded = await segmenter.encode(photo);
    held = number;
  }
  const between = performance.now();
  const found = await segmenter.label(encoded, asked, shown.height, shown.width);
  const seconds = { photo: photo ? (between - begin) / 1000 : 0 };
  seconds.names = (performance.now() - between) / 1000;
  return { ...found, names: asked, seconds };
}

// What went wrong, in a line.
function told(error) {
  const text = String(error?.message ?? error).split('\n')[0];
  // Exceptions of the engine arrive as numbers where it has no memory left for a text.
  const full = /memory|bad_?alloc|allocat|\bOOM\b|out of range|^\d+$/iu.test(text);
  if (error instanceof RangeError || full) {
    return (
      'This browser has too little memory for the model; close other tabs, or take ' +
      'another device.'
    );
  }
  return text;
}

onmessage = async ({ data }) => {
  try {
    const found = await segment(data);
    postMessage({ ...found, held }, [found.labels.buffer, found.confidence.buffer]);
  } catch (error) {
    postMessage({ error: told(error), held });
  }
};
opened.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ error: told(error), fatal: true }),
);
