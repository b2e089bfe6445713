/* The live view: sends a frame, draws what comes back, and only then sends the next, so that none ever waits in line. */

const $ = (id) => document.getElementById(id);
const facts = await (await fetch("facts")).json();
const GAMMAS = [1, 0.7, 0.5, 0.35, 0.25];
const FIRST = { layer: facts.stages[facts.stages.length >> 1] ?? facts.layers[0].name, unit: 0, closely: "overlay", scale: "map", gamma: 0 };
const state = { ...FIRST, photo: 0, camera: false, frozen: false, patches: false, ...remembered() };
const VIEWS = ["map", ...facts.closely];
const NAMES = { map: "Map", overlay: "On the picture", gradient: "Gradient", guided: "Guided", deconv: "Deconv" };
let shown = null; // what came back last
let places = { columns: 1, side: 1 };
let wake = () => {};
let changed = true;

const KEYS = [
  [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "another unit; also j l i k, and with Shift three further", null],
  [["u", "o"], "layer before, layer after", null],
  [["f"], "freeze the camera, or let it go on", () => set({ frozen: state.camera && !state.frozen })],
  [["c"], "camera or folder", () => (state.camera ? leaveCamera() : openCamera())],
  [["w", "e"], "photo before, next photo; also Page Up and Page Down", null],
  [["b"], "draw the unit in another way: map, on the picture, gradient, guided, deconv", nextView],
  [["t"], "brighter maps, by a gamma; also + and −", () => lift(1)],
  [["T"], "each map on its own scale, or all on the layer's", () => set({ scale: state.scale === "map" ? "shared" : "map" })],
  [["s"], "the patches of photos that excite the unit most", () => set({ patches: !state.patches })],
  [["z"], "the unit large, without the others", zoom],
  [["Escape"], "start anew", () => (document.body.classList.remove("zoomed"), set({ ...FIRST, patches: false, frozen: false }))],
  [["h"], "this list", () => $("help").showModal()],
];

/* What is wished for ----------------------------------------------------------------------------------------------- */

function remembered() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const layer = facts.layers.find(({ name }) => name === wanted.get("layer"));
  const unit = Number(wanted.get("unit"));
  return layer && unit < layer.shape[0] ? { layer: layer.name, unit } : {};
}

function set(wish) {
  Object.assign(state, wish);
  history.replaceState(null, "", `#${new URLSearchParams({ layer: state.layer, unit: state.unit })}`);
  $("layer").value = state.layer;
  for (const button of $("closely").children) {
    button.setAttribute("aria-checked", String(button.value === state.closely));
    button.tabIndex = button.value === state.closely ? 0 : -1;
  }
  $("freeze").hidden = !state.camera;
  $("freeze").setAttribute("aria-pressed", String(state.frozen));
  $("camera").textContent = state.camera ? (facts.pictures.length ? "Back to the folder" : "Close camera") : "Camera";
  $("photos").hidden = state.camera || facts.pictures.length < 2;
  $("patches").hidden = !state.patches;
  $("patches-open").hidden = state.patches || !facts.pictures.length;
  changed = true;
  wake();
  showPatches();
}

const shapeOf = (layer) => facts.layers.find(({ name }) => name === layer).shape;
const units = () => shapeOf(state.layer)[0];
const move = (by) => set({ unit: Math.min(units() - 1, Math.max(0, state.unit + by)) });

function moveLayer(by) {
  const options = [...$("layer").options].map(({ value }) => value);
  const now = $("layer").selectedIndex;
  const layer = options[Math.min(options.length - 1, Math.max(0, now + by))];
  chooseLayer(layer);
}

function chooseLayer(layer) {
  set({ layer, unit: Math.min(state.unit, shapeOf(layer)[0] - 1) });
}

function movePhoto(by) {
  const count = facts.pictures.length;
  if (count && !state.camera) set({ photo: (state.photo + by + count) % count });
}

function nextView() {
  set({ closely: VIEWS[(VIEWS.indexOf(state.closely) + 1) % VIEWS.length] });
}

function lift(by) {
  set({ gamma: (state.gamma + by + GAMMAS.length) % GAMMAS.length });
}

function zoom() {
  document.body.classList.toggle("zoomed");
  draw();
}

/* Frames ----------------------------------------------------------------------------------------------------------- */

const camera = { stream: null, canvas: document.createElement("canvas"), frame: null };

async function openCamera() {
  if (!navigator.mediaDevices) return problem("A browser gives the camera only to pages from localhost, or over https.");
  try {
    camera.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
  } catch (error) {
    return problem(error.name === "NotAllowedError" ? "This page was not allowed to use the camera." : `No camera: ${error.message}`);
  }
  $("video").srcObject = camera.stream;
  await $("video").play();
  camera.stream.getTracks()[0].addEventListener("ended", leaveCamera);
  problem("");
  set({ camera: true, frozen: false });
}

function leaveCamera() {
  for (const track of camera.stream?.getTracks() ?? []) track.stop();
  camera.stream = camera.frame = null;
  set({ camera: false, frozen: false });
}

/** The middle square of what the camera sees, as JPEG; the last one again while it is frozen. */
async function cameraFrame() {
  if (state.frozen && camera.frame) return camera.frame;
  const { canvas } = camera;
  const video = $("video");
  const side = Math.min(video.videoWidth, video.videoHeight);
  canvas.width = canvas.height = facts.side;
  const left = (video.videoWidth - side) / 2;
  const top = (video.videoHeight - side) / 2;
  canvas.getContext("2d").drawImage(video, left, top, side, side, 0, 0, facts.side, facts.side);
  camera.frame = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return camera.frame;
}

async function look() {
  const closely = state.closely === "map" ? "overlay" : state.closely;
  const wish = new URLSearchParams({ layer: state.layer, unit: state.unit, closely, scale: state.scale });
  if (!state.camera) wish.set("picture", state.photo);
  const asked = { layer: state.layer, closely: state.closely };
  const body = state.camera ? await cameraFrame() : undefined;
  const answer = await fetch(`see?${wish}`, { method: "POST", body });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return { ...found, ...asked };
}

async function run() {
  let frames = [];
  for (;;) {
    const still = !state.camera || state.frozen;
    if (document.hidden || (still && !changed) || (!state.camera && !facts.pictures.length)) {
      await new Promise((done) => (wake = done));
      frames = [];
      continue;
    }
    changed = false;
    const began = performance.now();
    try {
      shown = await look();
      draw();
      problem("");
    } catch (error) {
      problem(error instanceof TypeError ? "The server does not answer. Is impasto see live still running?" : error.message);
      await new Promise((done) => setTimeout(done, 1000));
      changed = true;
      continue;
    }
    const now = performance.now();
    frames = [...frames.filter((time) => time > now - 2000), now];
    const rate = frames.length > 1 ? (frames.length - 1) / ((now - frames[0]) / 1000) : 0;
    $("rate").textContent = still ? `${Math.round(now - began)} ms` : `${rate.toFixed(1)} frames a second`;
    await new Promise(requestAnimationFrame);
  }
}

/* Drawing ---------------------------------------------------------------------------------------------------------- */

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** A canvas of the size of what is drawn, from grey bytes or RGB bytes. */
function picture(values, width, height, canvas = document.createElement("canvas")) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const channels = values.length / (width * height);
  for (let at = 0; at < width * height; at++) {
    for (let channel = 0; channel < 3; channel++) image.data[4 * at + channel] = values[channels * at + (channels === 3 ? channel : 0)];
    image.data[4 * at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function draw() {
  if (!shown) return;
  picture(bytes(shown.seen), facts.size, facts.size, $("seen"));
  drawTop();
  drawGrid();
  drawUnit();
  $("name").textContent = state.camera ? (state.frozen ? "The camera, frozen" : "The camera") : `${facts.pictures[state.photo]} (${state.photo + 1} of ${facts.pictures.length})`;
}

function drawTop() {
  const rows = shown.top.map(({ name, probability }) => {
    const row = document.createElement("tr");
    const [left, right] = [row.insertCell(), row.insertCell()];
    left.textContent = left.title = name;
    const meter = left.appendChild(document.createElement("meter"));
    meter.value = probability;
    right.textContent = `${(100 * probability).toFixed(1)} %`;
    return row;
  });
  $("top").tBodies[0].replaceChildren(...rows);
  if (!rows.length) $("top").tBodies[0].insertRow().insertCell().textContent = "It names no classes.";
}

/** The maps as squares in reading order, as large as fit. */
function drawGrid() {
  const canvas = $("grid");
  const { clientWidth, clientHeight } = canvas;
  if (!clientWidth) return;
  const ratio = devicePixelRatio;
  canvas.width = clientWidth * ratio;
  canvas.height = clientHeight * ratio;
  const [count] = shown.shape;
  const [height, width] = shown.tile;
  places = { columns: 1, side: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const side = Math.floor(Math.min(canvas.width / columns, canvas.height / Math.ceil(count / columns)));
    if (side > places.side) places = { columns, side };
  }
  const lut = Uint8Array.from({ length: 256 }, (_, value) => Math.round(255 * (value / 255) ** GAMMAS[state.gamma]));
  const strip = picture(bytes(shown.tiles).map((value) => lut[value]), width, height * count);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const gap = places.side > 12 ? Math.max(1, Math.round(ratio)) : 0;
  for (let unit = 0; unit < count; unit++) {
    const [left, top] = corner(unit);
    context.drawImage(strip, 0, unit * height, width, height, left, top, places.side - gap, places.side - gap);
  }
  if (shown.layer === state.layer) outline(context, ratio);
  canvas.setAttribute("aria-label", `${count} maps of ${shown.layer}; unit ${state.unit} is selected`);
  const scale = state.scale === "map" ? "each from its least value (black) to its greatest (white)" : "all on the layer's scale";
  const pooled = shown.pooled > 1 ? `, each pixel the mean of ${shown.pooled} × ${shown.pooled}` : "";
  const gamma = state.gamma ? `, lifted by a gamma of ${GAMMAS[state.gamma]}` : "";
  $("legend").textContent = `${count} maps of ${shown.shape[1]} × ${shown.shape[2]}, ${scale}${pooled}${gamma}.`;
}

const corner = (unit) => [(unit % places.columns) * places.side, Math.floor(unit / places.columns) * places.side];

function outline(context, ratio) {
  const [left, top] = corner(state.unit);
  const width = Math.max(2, 3 * ratio);
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ochre");
  context.lineWidth = width;
  context.strokeRect(left + width / 2, top + width / 2, places.side - width, places.side - width);
}

function drawUnit() {
  $("unit-name").textContent = `Unit ${shown.unit} of ${shown.layer}`;
  const { low, high, zeros } = shown;
  $("close").hidden = Boolean(shown.refused);
  $("refused").hidden = !shown.refused;
  $("refused").textContent = shown.refused;
  const [, height, width] = shown.shape;
  if (shown.closely === "map") {
    const values = new Float32Array(bytes(shown.map).buffer);
    const span = high - low;
    const grey = Uint8Array.from(values, (value) => (span ? Math.round((255 * (value - low)) / span) : 128));
    picture(grey, width, height, $("close"));
  } else if (!shown.refused) {
    picture(bytes(shown.drawn), facts.size, facts.size, $("close"));
  }
  $("close").setAttribute("aria-label", `${NAMES[shown.closely]}: unit ${shown.unit} of ${shown.layer}`);
  $("unit-legend").textContent = `From ${low.toPrecision(3)} to ${high.toPrecision(3)}; ${(100 * zeros).toFixed(0)} % exact zeros. ${MEANINGS[shown.closely]}`;
}

const MEANINGS = {
  map: "Its map, from the least value (black) to the greatest (white).",
  overlay: "Its map over the picture, from the least value (black) over red to the greatest (white).",
  gradient: "What its map sends back to the pixels: the gradient, around mid-grey.",
  guided: "What its map sends back when a ReLU passes only what is positive both ways: sharp, hardly specific.",
  deconv: "What its map sends back when a ReLU passes only what is positive on the way back.",
};

/* Patches ---------------------------------------------------------------------------------------------------------- */

let asking = null;

async function showPatches() {
  const wanted = `patches?${new URLSearchParams({ layer: state.layer, unit: state.unit })}`;
  if (!state.patches || asking?.wanted === wanted) return;
  asking?.stop.abort();
  const mine = (asking = { wanted, stop: new AbortController() });
  $("patches-image").hidden = true;
  $("patches-note").textContent = facts.pictures.length
    ? `Looking through ${facts.pictures.length} photos …`
    : "There is no folder of photos to look through.";
  while (facts.pictures.length && asking === mine && state.patches) {
    try {
      const answer = await fetch(wanted, { signal: mine.stop.signal });
      if (answer.status === 503) {
        await new Promise((done) => setTimeout(done, 400));
        continue;
      }
      if (!answer.ok) throw new Error((await answer.json()).error);
      const url = URL.createObjectURL(await answer.blob());
      $("patches-image").onload = () => URL.revokeObjectURL(url);
      $("patches-image").src = url;
      $("patches-image").hidden = false;
      $("patches-note").textContent = "";
    } catch (error) {
      if (error.name !== "AbortError") $("patches-note").textContent = error.message;
    }
    return;
  }
  if (asking === mine && facts.pictures.length) asking = null;
}

/* The page --------------------------------------------------------------------------------------------------------- */

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

function keyed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || $("help").open) return;
  if (event.target.matches("select") || (event.target.matches("button") && [" ", "Enter"].includes(event.key))) return;
  const radios = event.target.closest("#closely") && event.key.startsWith("Arrow");
  const photos = event.target.closest("#input") && event.key.startsWith("Arrow");
  const far = 3 * places.columns;
  const steps = {
    ArrowLeft: -1, j: -1, ArrowRight: 1, l: 1, ArrowUp: -places.columns, i: -places.columns, ArrowDown: places.columns,
    k: places.columns, J: -3, L: 3, I: -far, K: far,
  };
  const by = steps[event.key] * (event.shiftKey && event.key.startsWith("Arrow") ? 3 : 1);
  const actions = {
    u: () => moveLayer(-1), U: () => moveLayer(-1), o: () => moveLayer(1), O: () => moveLayer(1),
    w: () => movePhoto(-1), PageUp: () => movePhoto(-1), e: () => movePhoto(1), PageDown: () => movePhoto(1),
    "+": () => lift(1), "-": () => lift(-1),
  };
  const found = KEYS.find(([keys, , act]) => act && keys.includes(event.key));
  const act = radios
    ? () => turnRadio(Math.sign(by))
    : photos
      ? () => movePhoto(Math.sign(by))
      : by
        ? () => stepUnit(by)
        : (actions[event.key] ?? found?.[2]);
  if (!act) return;
  event.preventDefault();
  act();
}

/** Up and down stay in the column; at the edge the selection stays where it is. */
function stepUnit(by) {
  const target = state.unit + by;
  if (Math.abs(by) < places.columns || (target >= 0 && target < units())) move(by);
}

function turnRadio(by) {
  set({ closely: VIEWS[(VIEWS.indexOf(state.closely) + by + VIEWS.length) % VIEWS.length] });
  $("closely").querySelector("[aria-checked=true]").focus();
}

function build() {
  document.title = `impasto: ${facts.network}, live`;
  const group = (label, names) => {
    const made = $("layer").appendChild(document.createElement("optgroup"));
    made.label = label;
    for (const name of names) made.append(new Option(`${name}  ${shapeOf(name).join(" × ")}`, name));
  };
  const all = facts.layers.map(({ name }) => name);
  group(`${facts.network}: its stages`, facts.stages);
  group("All other layers", all.filter((name) => !facts.stages.includes(name)));
  for (const view of VIEWS) {
    const button = $("closely").appendChild(document.createElement("button"));
    Object.assign(button, { type: "button", value: view, textContent: NAMES[view], onclick: () => set({ closely: view }) });
    button.setAttribute("role", "radio");
  }
  for (const [keys, meaning] of KEYS) {
    const term = $("keys").appendChild(document.createElement("dt"));
    for (const key of keys) term.appendChild(document.createElement("kbd")).textContent = SIGNS[key] ?? key;
    $("keys").appendChild(document.createElement("dd")).textContent = meaning;
  }
  $("camera").hidden = false;
}

const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

build();
$("layer").onchange = (event) => chooseLayer(event.target.value);
$("layer-before").onclick = () => moveLayer(-1);
$("layer-after").onclick = () => moveLayer(1);
$("photo-before").onclick = () => movePhoto(-1);
$("photo-after").onclick = () => movePhoto(1);
$("camera").onclick = () => (state.camera ? leaveCamera() : openCamera());
$("freeze").onclick = () => set({ frozen: !state.frozen });
$("help-open").onclick = () => $("help").showModal();
$("patches-open").onclick = () => set({ patches: true });
$("grid").onclick = (event) => {
  const ratio = devicePixelRatio;
  const unit = Math.floor((event.offsetY * ratio) / places.side) * places.columns + Math.floor((event.offsetX * ratio) / places.side);
  if (event.offsetX * ratio < places.columns * places.side && unit < units()) set({ unit });
};
addEventListener("keydown", keyed);
addEventListener("resize", draw);
document.addEventListener("visibilitychange", () => wake());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
set({});
if (!facts.pictures.length) problem("Press c for the camera, or start with a folder of photos: impasto see live FOLDER");
run();
