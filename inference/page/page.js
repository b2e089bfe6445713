/** The page: what the visitor touches, wired to the studio that paints. */

import { listenForPhotos } from "./arrivals.js";
import { Camera } from "./camera.js";
import { openBrowserPainter } from "./engine.js";
import { keepForOffline } from "./offline.js";
import { Photo, readPhoto } from "./photo.js";
import { ENDINGS, fileName, saveAs, saved } from "./save.js";
import { ServerPainter } from "./server.js";
import { Stage } from "./stage.js";
import { Studio } from "./studio.js";
import { StylePicker } from "./styles.js";

const SLIDERS = ["share", "strength", "colours"];
const SAMPLE = "A lake drawn for this page: drop, paste or choose yours.";

const $ = (id) => document.getElementById(id);
const stage = new Stage($("stage"));
const picker = new StylePicker($("styles"), $("mix"));
const camera = new Camera();
const studio = new Studio({
  painted: showPainted,
  thumbnail: (name, picture) => picker.fill(name, picture),
  busy: showBusy,
  failed: showFailure,
});
let packs = [];
let painter = null;
let photo = null;
let saving = null;

// ---- words -------------------------------------------------------------------------------------------------------

function say(words) {
  $("status").textContent = words;
}

/** One line about what went wrong; everything else stays as it is. */
function complain(words) {
  $("problem").firstElementChild.textContent = words;
  $("problem").hidden = words === "";
}

function showFailure(error) {
  complain(`The picture could not be painted: ${error.message || error}. Your photo is still here.`);
}

function size({ width, height }) {
  return `${width} × ${height}`;
}

function lookWords() {
  const [first, second] = picker.chosen;
  const share = second ? Number($("share").value) : 0;
  const styles = second
    ? `${picker.title(first)} (${100 - share} %) and ${picker.title(second)} (${share} %)`
    : picker.title(first);
  const kept = Number($("colours").value);
  const colours = kept ? `, ${kept} % of the photo's colours` : "";
  return `${photo.name} painted in ${styles}, strength ${$("strength").value} %${colours}`;
}

function showEngine(place, name, note) {
  $("engine").dataset.place = place;
  $("engine-name").textContent = name;
  $("engine-note").textContent = note;
}

// ---- the studio ----------------------------------------------------------------------------------------------------

function look() {
  const [first, second] = picker.chosen;
  const share = Number($("share").value) / 100;
  const mixture = second
    ? [
        [first, 1 - share],
        [second, share],
      ]
    : [[first, 1]];
  return { mixture, strength: Number($("strength").value) / 100, colours: Number($("colours").value) / 100 };
}

function changeLook() {
  for (const id of SLIDERS) {
    $(`${id}-value`).textContent = `${$(id).value} %`;
    $(id).style.setProperty("--filled", `${$(id).value}%`);
    $(id).setAttribute("aria-valuetext", `${$(id).value} percent`);
  }
  if (picker.chosen[1])
    $("share").setAttribute("aria-valuetext", `${$("share").value} percent ${picker.title(picker.chosen[1])}`);
  if (painter) studio.setLook(look());
}

function showPainted(picture, settled, seconds) {
  stage.setPainted(picture);
  if (!settled) return;
  stage.describe(lookWords());
  describeSizes();
  say(`Painted at ${size(picture)}${seconds < 0.1 ? "" : ` in ${seconds.toFixed(1)} s`}.`);
}

function showBusy(busy) {
  $("stage").setAttribute("aria-busy", String(busy));
  if (saving) return;
  $("progress").hidden = !busy;
  $("progress").removeAttribute("value");
}

function describeSizes() {
  const [width, height] = studio.result
    ? [studio.result.picture.width, studio.result.picture.height]
    : studio.shownSize;
  const smaller = width < photo.width;
  $("size").options[0].textContent = size(photo);
  $("size").options[1].textContent = `${width} × ${height}, as shown`;
  $("size").options[1].hidden = !smaller;
  if (!smaller) $("size").value = "full";
}

async function usePhoto(next) {
  leaveCamera();
  photo = next;
  stage.setPhoto(photo);
  stage.describe(photo.name);
  $("caption").textContent = photo.file ? `${photo.caption}, ${size(photo)}` : photo.caption;
  $("format").value = photo.transparent ? "image/png" : photo.file?.type in ENDINGS ? photo.file.type : "image/jpeg";
  complain("");
  studio.setPhoto(photo);
  if (!painter) return;
  picker.preview(photo.square(Math.min(160, photo.width, photo.height)));
  describeSizes();
  studio.start();
}

async function takeFile(file) {
  if (saving) return complain("A picture is being saved; your new photo can come after that.");
  try {
    await usePhoto(await readPhoto(file));
  } catch (error) {
    complain(`${error.message}.`);
  }
}

// ---- packs and painters --------------------------------------------------------------------------------------------

async function openPack(pack) {
  saving?.abort();
  studio.pause();
  $("save").disabled = true;
  if (painter) {
    try {
      await painter.open(pack);
    } catch (error) {
      $("pack").value = studio.pack.name;
      $("save").disabled = false;
      studio.start();
      return complain(`${pack.name} could not be loaded: ${error.message}.`);
    }
  } else {
    painter = await openPainter(pack);
  }
  picker.show(pack);
  studio.setPainter(painter, pack);
  studio.setLook(look());
  $("save").disabled = false;
  if (photo) await usePhoto(photo);
}

/** The network in this browser; else on the server. */
async function openPainter(pack) {
  let failure;
  const opened = await openBrowserPainter(pack).catch((error) => {
    failure = error;
    return new ServerPainter(pack);
  });
  if (opened.local) {
    showEngine("here", `In this browser: ${opened.label}`, "Your photo stays on this machine.");
  } else {
    showEngine("server", `On the server ${opened.label}`, "Photos are sent there to be painted.");
    say(`This browser does not run the network: ${failure.message}.`);
  }
  return opened;
}

async function start() {
  changeLook();
  const sample = await (await fetch("sample.jpg")).blob();
  const lake = new Photo(await createImageBitmap(sample), { name: "lake", caption: SAMPLE });
  if (!photo) await usePhoto(lake);
  const response = await fetch("v1/styles");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  packs = (await response.json()).packs;
  if (packs.length === 0) throw new Error("the server has no style pack");
  $("pack").replaceChildren(...packs.map(({ name }) => new Option(name.replaceAll("_", " "), name)));
  $("pack-field").hidden = packs.length < 2;
  await openPack(packs[0]);
  if (painter.local && (await keepForOffline(painter.files))) {
    $("engine-note").textContent = "Your photo stays on this machine. Works offline.";
  }
}

start().catch((error) => {
  showEngine("none", "No styles", "");
  complain(`The styles could not be loaded: ${error.message}. Load the page again once the server is there.`);
});

// ---- saving --------------------------------------------------------------------------------------------------------

async function save() {
  if (saving) return saving.abort();
  saving = new AbortController();
  const { signal } = saving;
  const full = $("size").value === "full";
  const type = $("format").value;
  const started = performance.now();
  const expected = (1000 * photo.width * photo.height) / (painter.rate || 1e5);
  const clock = setInterval(
    () => ($("progress").value = 1 - Math.exp((-1.6 * (performance.now() - started)) / expected)),
    200,
  );
  $("save").textContent = "Cancel";
  $("progress").hidden = false;
  if (full) say(`Painting ${size(photo)}${expected > 3000 ? `, about ${Math.round(expected / 1000)} s` : ""} …`);
  const { version } = studio;
  const name = fileName(photo, picker.chosen.filter(Boolean), type);
  try {
    const picture = full ? await studio.paintFull(signal) : await studio.paintShown(signal);
    if (version === studio.version) stage.setPainted(picture);
    await saveAs(name, picture, type);
    say(saved(name, picture, full && photo));
  } catch (error) {
    if (signal.aborted) say("Nothing was saved.");
    else complain(`The picture could not be saved: ${error.message}. Try the smaller size, or another format.`);
  } finally {
    clearInterval(clock);
    saving = null;
    $("save").textContent = "Save";
    showBusy(false);
  }
}

// ---- the camera ----------------------------------------------------------------------------------------------------

async function enterCamera(open) {
  if (!Camera.possible)
    return complain("A page gets the camera only over https, or from this very machine (localhost).");
  if (!painter || saving) return;
  try {
    await open();
  } catch (error) {
    if (!camera.running) leaveCamera();
    return complain(error.message);
  }
  complain("");
  studio.pause();
  $("photo-buttons").hidden = true;
  $("camera-buttons").hidden = false;
  $("turn").hidden = camera.devices.length < 2;
  $("caption").textContent = "";
  $("save").disabled = true;
  $("snap").focus();
  say("The camera is on; its pictures are painted as they come.");
  stage.describe("The camera's picture, painted live");
  const paint = (frame) => painter.paint(frame, look(), { urgent: true });
  const show = (frame, painted, perSecond) => {
    stage.setFrame(frame, painted, camera.size);
    $("rate").textContent = `${perSecond.toFixed(1)} frames a second, ${size(painted)}`;
  };
  camera
    .run(paint, () => painter.rate, show)
    .catch((error) => {
      leaveCamera();
      showFailure(error);
    });
}

/** Back to the photo from before. */
function leaveCamera() {
  camera.close();
  if ($("camera-buttons").hidden) return;
  $("camera-buttons").hidden = true;
  $("photo-buttons").hidden = false;
  $("save").disabled = false;
  $("rate").textContent = "";
  say("");
  $("camera").focus();
}

async function snap() {
  await takeFile(await camera.still());
  $("format").value = "image/jpeg";
}

// ---- what is touched -----------------------------------------------------------------------------------------------

picker.addEventListener("choose", changeLook);
for (const id of SLIDERS) $(id).addEventListener("input", changeLook);
$("pack").addEventListener("change", ({ target }) => openPack(packs.find(({ name }) => name === target.value)));
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) takeFile(target.files[0]);
  target.value = "";
});
$("camera").addEventListener("click", () => enterCamera(() => camera.open()));
$("turn").addEventListener("click", () => enterCamera(() => camera.turn()));
$("snap").addEventListener("click", snap);
$("leave").addEventListener("click", () => usePhoto(photo));
$("save").addEventListener("click", save);
$("dismiss").addEventListener("click", () => {
  complain("");
  $("stage").focus();
});
$("zoom-in").addEventListener("click", () => stage.zoomIn());
$("zoom-out").addEventListener("click", () => stage.zoomOut());
$("zoom-fit").addEventListener("click", () => stage.toggleActual());
$("stage").addEventListener("arranged", () => {
  const zoom = `${Math.round(100 * stage.scale)} %`;
  $("zoom-fit").textContent = zoom;
  $("zoom-fit").ariaLabel = `${zoom}; whole photo or its own pixels`;
});
listenForPhotos(takeFile, complain);
