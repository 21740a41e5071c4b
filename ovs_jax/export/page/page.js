// The page: a photo and names in, coloured pixels and a legend out.

const find = (id) => document.getElementById(id);
const canvas = find('canvas');
const pen = canvas.getContext('2d', { willReadFrequently: true });
const SIDE = 1024; // pixels, at most, of what is shown and named
// The smallest program with an instruction of SIMD.
const SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253,
  15, 253, 98, 11,
];
const FULL = 'This browser has too little memory for the photo; take a smaller one.';

let worker = null;
let photo = null; // its pixels, all of them
let shown = null; // its pixels as shown
let photos = 0; // so many were taken; the number of the last one
let held = null; // the number of the photo that the model has
let answer = null; // of the model: labels, confidence, names
let colours = []; // of each name, and the lines around it
let busy = null; // the number of the photo that the model was asked about
let again = false; // whether something else was asked meanwhile

const say = (text) => { find('said').textContent = text; };
function complain(text) {
  find('error').textContent = text;
  if (text) say('');
}

async function decoded(blob) {
  let bitmap;
  try {
    const options = { imageOrientation: 'from-image', colorSpaceConversion: 'none' };
    bitmap = await createImageBitmap(blob, options);
  } catch {
    const name = blob.name ?? 'The photo';
    throw new Error(`${name} cannot be read; take a JPEG, PNG or WebP file.`);
  }
  return bitmap;
}

// Returns {data, width, height}: RGBA on white.
function pixels(bitmap, width, height) {
  const sheet = Object.assign(document.createElement('canvas'), { width, height });
  const brush = sheet.getContext('2d', { willReadFrequently: true });
  try {
    brush.fillStyle = '#fff';
    brush.fillRect(0, 0, width, height);
    brush.imageSmoothingQuality = 'high';
    brush.drawImage(bitmap, 0, 0, width, height);
    return brush.getImageData(0, 0, width, height);
  } catch {
    throw new Error(FULL);
  }
}

async function take(blob) {
  complain('');
  const bitmap = await decoded(blob);
  const { width, height } = bitmap;
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const size = [width, height].map((n) => Math.max(1, Math.round(n * scale)));
  photo = pixels(bitmap, width, height);
  shown = scale < 1 ? pixels(bitmap, ...size) : photo;
  bitmap.close();
  photos += 1;
  answer = null;
  [canvas.width, canvas.height] = size;
  canvas.hidden = false;
  find('hint').hidden = true;
  find('drop').classList.add('full');
  draw();
  if (find('names').value.trim()) ask();
  else say('Now type what to look for.');
}

function ask() {
  complain('');
  if (!shown) return complain('Choose a photo first, or take the example.');
  again = busy !== null;
  if (again) return;
  busy = photos;
  document.body.dataset.state = 'busy';
  say('Computing ...');
  const { data, width, height } = photo;
  worker.postMessage({
    photo: held === photos ? null : { data, width, height },
    number: photos,
    names: find('names').value,
    shown: { width: shown.width, height: shown.height },
  });
}

function hear({ data }) {
  if (data.ready) {
    document.body.dataset.state = 'ready';
    return say('Choose a photo, or take the example.');
  }
  if (data.fatal) return refuse(data.error);
  const old = busy !== photos;
  held = data.held;
  busy = null;
  if (again) return ask();
  document.body.dataset.state = data.error ? 'error' : old ? 'ready' : 'answer';
  if (data.error) return complain(data.error);
  if (old) return;
  answer = data;
  const { photo: first, names } = data.seconds;
  const found = new Set(data.labels);
  found.delete(-1);
  const networks = first ? `photo ${first.toFixed(2)} s, ` : '';
  const count = `${found.size} of ${data.names.length} names found`;
  say(`${count}: ${networks}names ${names.toFixed(2)} s.`);
  draw();
}

// The photo in grey, tinted by names and outlined, pixel for pixel as `predict` draws it.
function draw() {
  const { width, height } = canvas;
  const image = pen.createImageData(width, height);
  image.data.set(shown.data);
  if (answer) tint(image.data, width, height, Number(find('opacity').value) / 100);
  pen.putImageData(image, 0, 0);
  legend();
}

function tint(data, width, height, opacity) {
  const { labels } = answer;
  const differs = (k, i, inside) => inside && labels[i] !== k;
  const share = Math.round(256 * opacity);
  for (let i = 0; i < labels.length; i++) {
    const at = 4 * i;
    const k = labels[i];
    const x = i % width;
    const grey = (77 * data[at] + 150 * data[at + 1] + 29 * data[at + 2] + 128) >> 8;
    const edge =
      differs(k, i - 1, x > 0) || differs(k, i + 1, x + 1 < width) ||
      differs(k, i - width, i >= width) || differs(k, i + width, i + width < labels.length);
    const { colour, line } = k >= 0 ? colours[k % colours.length] : {};
    for (let c = 0; c < 3; c++) {
      const mixed = colour && (colour[c] * share + grey * (256 - share) + 128) >> 8;
      data[at + c] = !colour ? grey : edge ? line : mixed;
    }
  }
}

function legend() {
  const list = find('legend');
  list.replaceChildren();
  if (!answer) return;
  const count = answer.names.length;
  const share = new Float64Array(count);
  const sure = new Float64Array(count);
  answer.labels.forEach((k, i) => {
    if (k < 0) return;
    share[k] += 1;
    sure[k] += answer.confidence[i];
  });
  const order = [...share.keys()].sort((a, b) => share[b] - share[a]);
  for (const k of order) {
    const row = document.createElement('li');
    const patch = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
    const brush = patch.getContext('2d');
    brush.fillStyle = `rgb(${colours[k % colours.length].colour})`;
    brush.fillRect(0, 0, 1, 1);
    const part = (100 * share[k]) / answer.labels.length;
    const mean = share[k] ? (sure[k] / share[k]).toFixed(2) : '';
    const figures = [`${part.toFixed(1)} %`, mean].map((figure) => text(figure, 'number'));
    row.append(patch, text(answer.names[k], 'name'), ...figures);
    list.append(row);
  }
}

function text(content, kind) {
  return Object.assign(document.createElement('span'), { textContent: content, className: kind });
}

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    complain(error.message);
  }
}

function listen() {
  find('ask').onsubmit = (event) => {
    event.preventDefault();
    ask();
  };
  find('file').onchange = ({ target }) => target.files[0] && guarded(() => take(target.files[0]));
  find('example').onclick = () => guarded(async () => {
    const about = await (await fetch('example.json')).json();
    if (!find('names').value.trim()) find('names').value = about.names;
    await take(await (await fetch(about.photo)).blob());
  });
  find('opacity').oninput = () => shown && draw();
  const drop = find('drop');
  for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
      const [file] = kind === 'drop' ? event.dataTransfer.files : [];
      if (file) guarded(() => take(file));
    });
  }
}

// Says why nothing can be done here.
function refuse(text) {
  complain(text);
  find('go').disabled = true;
  document.body.dataset.state = 'refused';
}

async function begin() {
  complain('');
  if (!globalThis.WebAssembly?.validate(new Uint8Array(SIMD))) {
    return refuse(
      'This browser lacks WebAssembly with SIMD, which the model needs; take a current ' +
        'Chrome, Edge, Firefox or Safari.',
    );
  }
  say('Loading the model ...');
  colours = await (await fetch('colours.json')).json();
  worker = new Worker('worker.js', { type: 'module' });
  worker.onmessage = hear;
  worker.onerror = () =>
    refuse('The model cannot be started; put the whole folder on the server, and reload.');
  listen();
}

guarded(begin);
