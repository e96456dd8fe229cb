// The page: says what it is doing, takes or picks a photo, embeds it here, and shows what the gallery has.

import { benchmarkTab } from "./benchmark.js";
import { cameraProblem, openCamera } from "./camera.js";
import { loadEngine, threadsHere } from "./engine.js";
import { decode, preprocess } from "./pixels.js";
import { ask, Problem, search } from "./server.js";

const RESULTS = 12;
const at = (id) => document.getElementById(id);
const state = { about: null, engine: null, camera: null, embedding: null, shown: null };

function tell(text, busy = false) {
  at("status").textContent = text;
  at("status").classList.toggle("busy", busy);
}

// What went wrong, what it means, and a button that helps.
function explain(title, text, label = "", action = null) {
  at("problem-title").textContent = title;
  at("problem-text").textContent = text;
  at("problem-action").textContent = label;
  at("problem-action").hidden = action === null;
  at("problem-action").onclick = action;
  at("problem").hidden = false;
}

const forget = () => { at("problem").hidden = true; };

// The next frame: what was told is on the screen before the work that blocks it begins.
const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

async function start() {
  forget();
  try {
    tell("Asking the server what it has", true);
    state.about = await (await ask("/about")).json();
    describeGallery();
    state.engine = await loadEngine(state.about, "wasm", threadsHere(), (text) => tell(text, true));
    for (const id of ["take", "choose", "measure"]) at(id).disabled = false;
    benchmarkTab(state.about, { tell, explain, forget });
    tell("Ready");
    at("offline").textContent = await keepOffline();
  } catch (error) {
    tell("Not ready");
    const title = error instanceof Problem ? error.title : "The model could not be loaded";
    explain(title, error.message, "Try again", start);
  }
}

function describeGallery() {
  const { gallery, model } = state.about;
  at("facts").textContent =
    `${gallery.count.toLocaleString("en")} items in ${gallery.name}. ${model.name} runs on this phone; no photo is sent.`;
}

// Keep page and model for times without a connection, where the browser allows it.
async function keepOffline() {
  if (!("serviceWorker" in navigator)) return "Offline use needs a secure connection.";
  try {
    const known = await navigator.serviceWorker.register(`/service-worker.js?version=${state.about.version}`);
    await installed(known.installing ?? known.waiting ?? known.active);
    return "Works offline from now on; only searching needs the connection.";
  } catch (error) {
    return `Not kept for offline use: ${error.message}`;
  }
}

function installed(worker) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === "redundant") reject(new Error("the browser could not store all of it."));
      else if (worker.state !== "installing") resolve();
    };
    worker.addEventListener("statechange", look);
    look();
  });
}

async function takePhoto() {
  forget();
  if (!navigator.mediaDevices?.getUserMedia) { // not a secure connection: the camera app works all the same
    at("taken").click();
    return;
  }
  if (state.camera === null) await startCamera();
  else await embedAndSearch(await stopCamera(true));
}

async function startCamera() {
  tell("Waiting for the camera", true);
  try {
    state.camera = await openCamera(at("viewfinder"));
    showCamera(true);
    tell("Point at something and press Take photo");
  } catch (error) {
    tell("Ready");
    explain("The camera cannot be used", cameraProblem(error), "Use the camera app", () => at("taken").click());
  }
}

// The picture, if one is wanted; the camera is off afterwards.
async function stopCamera(shoot) {
  try {
    return shoot ? await state.camera.shoot() : null;
  } finally {
    state.camera.close();
    state.camera = null;
    showCamera(false);
  }
}

function showCamera(on) {
  for (const id of ["camera", "cancel"]) at(id).hidden = !on;
  at("choose").hidden = on;
  at("hint").hidden = on || state.shown !== null;
  if (on) for (const id of ["query", "results-title", "results"]) at(id).hidden = true;
}

async function embedAndSearch(blob) {
  forget();
  show(blob);
  tell("Reading the photo", true);
  await painted();
  let pixels;
  const begun = performance.now();
  try {
    const { rgba, width, height } = await decode(blob);
    pixels = preprocess(rgba, width, height, state.about.model.contract);
  } catch (error) {
    tell("Ready");
    explain("This photo cannot be read", `${error.message}. JPEG, PNG and WebP work in every browser.`);
    return;
  }
  tell("Computing the embedding on this phone", true);
  await painted();
  const read = performance.now();
  try {
    state.embedding = await state.engine.embed(pixels);
  } catch (error) {
    tell("Ready");
    explain("The model did not run", `${error.message}. Close other tabs and apps and reload the page.`);
    return;
  }
  const times = `Read in ${Math.round(read - begun)} ms, embedded in ${Math.round(performance.now() - read)} ms`;
  at("query-facts").textContent = `${times}.`;
  await searchAgain();
}

function show(blob) {
  if (state.shown !== null) URL.revokeObjectURL(state.shown);
  state.shown = URL.createObjectURL(blob);
  at("query-photo").src = state.shown;
  at("query-facts").textContent = "";
  at("query").hidden = false;
  at("hint").hidden = true;
  at("results-title").hidden = true;
  at("results").replaceChildren();
}

async function searchAgain() {
  forget();
  tell("Searching the gallery", true);
  try {
    const found = await search(state.about, state.embedding, RESULTS);
    showResults(found);
    const sent = `${state.embedding.byteLength.toLocaleString("en")} bytes were sent.`;
    if (!at("query-facts").textContent.endsWith(sent)) at("query-facts").textContent += ` ${sent}`;
    tell(`${found.length} results`);
  } catch (error) {
    tell("Not searched");
    if (!(error instanceof Problem)) throw error;
    explainSearch(error);
  }
}

function explainSearch(problem) {
  if (problem.status === 0) {
    const text = `${problem.message} The embedding is kept: search again when the connection is back.`;
    explain(problem.title, text, "Search again", searchAgain);
  } else if (problem.status === 409) {
    const text = `${problem.message} The server has another gallery now: load its model.`;
    explain(problem.title, text, "Load the server's model", () => location.reload());
  } else {
    explain(problem.title, problem.message, "Search again", searchAgain);
  }
}

function showResults(found) {
  at("results").classList.toggle("names", !found.some((item) => item.photo));
  at("results").replaceChildren(...found.map(resultItem));
  at("results").hidden = false;
  at("results-title").hidden = false;
  at("results-title").focus({ preventScroll: true });
}

function resultItem(item) {
  const line = document.createElement("li");
  line.dataset.row = item.row;
  if (item.photo) {
    line.append(Object.assign(new Image(), { src: item.photo, alt: "", loading: "lazy" }));
  }
  const name = Object.assign(document.createElement("span"), { className: "name", textContent: item.id, title: item.id });
  const score = Object.assign(document.createElement("span"), { className: "score", textContent: item.score.toFixed(3) });
  line.append(name, score);
  return line;
}

function picked(event) {
  const [file] = event.target.files;
  event.target.value = ""; // the same photo may be chosen again
  if (file) embedAndSearch(file);
}

function chooseTab(name) {
  for (const each of ["search", "bench"]) {
    const chosen = each === name;
    at(`${each}-tab`).setAttribute("aria-selected", chosen);
    at(`${each}-tab`).tabIndex = chosen ? 0 : -1;
    at(`${each}-panel`).hidden = at(`${each}-actions`).hidden = !chosen;
  }
  if (state.camera !== null) stopCamera(false);
}

at("take").addEventListener("click", takePhoto);
at("choose").addEventListener("click", () => at("picked").click());
at("cancel").addEventListener("click", () => { stopCamera(false); tell("Ready"); });
at("picked").addEventListener("change", picked);
at("taken").addEventListener("change", picked);
for (const [name, other] of [["search", "bench"], ["bench", "search"]]) {
  at(`${name}-tab`).addEventListener("click", () => chooseTab(name));
  at(`${name}-tab`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    chooseTab(other);
    at(`${other}-tab`).focus();
  });
}
addEventListener("pagehide", () => state.camera?.close());
addEventListener("online", () => { if (state.about === null) start(); });
start();
