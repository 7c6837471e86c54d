/**
 * The box “Try it” of a classifier's page: photograph -> worker -> five best classes.
 *
 * Every text of the model (class names, messages) is set as text, never as HTML.
 */

const TOP = 5;

const box = document.getElementById("try-it");
const find = (name) => box.querySelector(`.try-it-${name}`);
const configuration = JSON.parse(document.getElementById("try-it-configuration").textContent);
const element = Object.fromEntries(
  ["controls", "drop", "file", "status", "progress", "error", "figure", "canvas", "note",
   "classes", "times"].map((name) => [name, find(name)]),
);
let id = 0; // of the newest photograph
let isBusy = false; // with that photograph
let worker;

/** Resolves the addresses in the configuration, which are relative to the page. */
function resolved({ model, runtime, ...rest }) {
  const absolute = (address) => new URL(address, document.baseURI).href;
  const files = Object.entries(runtime).map(([device, { script, binary, size }]) => [
    device,
    { script: absolute(script), binary: absolute(binary), size },
  ]);
  return {
    ...rest,
    model: { ...model, archive: absolute(model.archive) },
    runtime: Object.fromEntries(files),
  };
}

function startWorker() {
  worker = new Worker(new URL("try_it_worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => {
    if (data.id === id && isBusy) receive(data); // downloads go on after an error
  };
  worker.onerror = (event) => {
    event.preventDefault();
    worker = undefined; // the next photograph starts another one
    fail("The browser can’t run the scripts of this box. A recent version of it can.");
  };
  const { input, output, model, runtime } = configuration;
  worker.postMessage({ configuration: resolved({ input, output, model, runtime }) });
}

/** Classifies a file, instead of one that is still being classified. */
function classify(file) {
  id += 1;
  isBusy = true;
  element.error.hidden = true;
  element.figure.hidden = true;
  clear();
  show({ text: "Reading the photograph" });
  if (!worker) startWorker();
  worker.postMessage({ id, file });
}

function receive({ progress, input, result, error }) {
  if (progress) show(progress);
  if (input) drawInput(input);
  if (result) showResult(result);
  if (error) fail(error);
}

/** Shows what is being done, and how far it has come if that is known. */
function show({ text, done, total }) {
  box.setAttribute("aria-busy", "true");
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  element.status.textContent = text;
  element.status.classList.remove("try-it-done");
  element.progress.hidden = false;
  if (total) {
    element.progress.max = total;
    element.progress.value = done;
    element.status.textContent += `: ${megabytes(done)} of ${megabytes(total)} MB`;
  } else {
    element.progress.removeAttribute("value");
  }
}

function finish(status) {
  isBusy = false;
  box.setAttribute("aria-busy", "false");
  element.progress.hidden = true;
  element.status.textContent = status;
  element.status.classList.add("try-it-done"); // for screen readers: the rest is visible
}

function clear() {
  element.classes.replaceChildren();
  element.times.textContent = "";
}

function fail(message) {
  finish("");
  clear();
  element.figure.hidden = true;
  element.error.textContent = message;
  element.error.hidden = false;
}

/** Draws the pixels that the model gets, which shows the crop, too. */
function drawInput({ pixels, animated }) {
  const { height, width } = configuration.input;
  const image = new ImageData(width, height);
  for (let index = 0; index < height * width; index++) {
    image.data.set(pixels.subarray(3 * index, 3 * index + 3), 4 * index);
    image.data[4 * index + 3] = 255;
  }
  element.canvas.height = height;
  element.canvas.width = width;
  element.canvas.getContext("2d").putImageData(image, 0, 0);
  element.note.hidden = !animated;
  element.figure.hidden = false;
}

function showResult({ logits, times, device }) {
  const best = rank(logits);
  element.classes.replaceChildren(...best.map(row));
  const milliseconds = (name) => `${Math.round(times[name]).toLocaleString("en")} ms`;
  const where = device === "webgpu" ? "WebGPU" : "WebAssembly";
  element.times.textContent =
    `Decoded in ${milliseconds("decode")}, cropped and resized in ` +
    `${milliseconds("resize")}; the model took ${milliseconds("model")} in ${where}.`;
  finish(`Most likely: ${best[0].name}, ${percent(best[0].probability)}`);
  const detail = { logits, times, device, best };
  box.dispatchEvent(new CustomEvent("try-it-result", { detail }));
}

/** Returns name and probability of the best classes, the best first. */
function rank(logits) {
  return Array.from(probabilities(logits), (probability, index) => ({
    probability,
    name: configuration.classes[index] ?? `class ${index}`,
  }))
    .sort((first, second) => second.probability - first.probability)
    .slice(0, TOP);
}

function probabilities(logits) {
  if (configuration.output.scores === "sigmoid") {
    return Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  }
  const largest = logits.reduce((first, second) => Math.max(first, second));
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((first, second) => first + second);
  return powers.map((power) => power / sum);
}

function percent(probability) {
  const number = 100 * probability;
  if (number < 0.1) return "< 0.1 %";
  return `${number.toFixed(1)} %`;
}

function row({ name, probability }) {
  const make = (tag, kind, ...content) => {
    const made = document.createElement(tag);
    made.className = `try-it-${kind}`;
    made.append(...content);
    return made;
  };
  const bar = make("span", "bar");
  bar.style.setProperty("--share", probability); // by script: no style attribute in HTML
  return make(
    "li",
    "class",
    make("span", "name", name),
    make("span", "percent", percent(probability)),
    bar,
  );
}

function hasFiles(transfer) {
  return transfer?.types.includes("Files");
}

/** Takes a photograph from a click, the keyboard, a drop anywhere, or the clipboard. */
function listen() {
  element.file.addEventListener("change", () => {
    if (element.file.files.length) classify(element.file.files[0]);
    element.file.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault(); // else the browser would open the file instead of the page
    element.drop.classList.add("try-it-over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) element.drop.classList.remove("try-it-over");
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    element.drop.classList.remove("try-it-over");
    if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    classify(event.clipboardData.files[0]);
  });
}

listen();
find("unavailable").hidden = true;
element.controls.hidden = false;
