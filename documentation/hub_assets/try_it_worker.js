/**
 * Classifies photographs beside the page, which stays responsive meanwhile:
 * decode -> crop and resize -> model.
 *
 * Messages in: `{configuration}` once, then `{id, file}` for each photograph. A new
 * photograph cancels the one before. Messages out: `{id, progress}`, `{id, input}`,
 * and last `{id, result}` or `{id, error}`.
 */

import { fetchMember, fetchPacked } from "./try_it_archive.js";
import { Refusal, bands, decode } from "./try_it_photograph.js";
import { Resizer, centralCrop, toInput } from "./try_it_preprocess.js";

const MOST_THREADS = 4;
const UNEXPECTED = "This browser can’t classify the photograph; a recent version may. ";

let configuration;
let latest; // id of the newest photograph
let session; // promise of the loaded model
let cache = "default"; // after a failure, what the browser stored may be damaged

class Cancelled extends Error {}

self.onmessage = async ({ data }) => {
  if (data.configuration) {
    configuration = data.configuration;
    return;
  }
  const { id, file } = data;
  latest = id;
  try {
    self.postMessage({ id, result: await classify(id, file) });
  } catch (error) {
    if (error instanceof Cancelled) return;
    const why = error instanceof Refusal ? error.message : UNEXPECTED + error;
    self.postMessage({ id, error: why });
  }
};

async function classify(id, file) {
  const times = {};
  const step = async (name, work) => {
    const start = performance.now();
    const result = await work();
    times[name] = performance.now() - start;
    if (id !== latest) throw new Cancelled();
    return result;
  };
  report("Decoding the photograph");
  const photograph = await step("decode", () => decode(file));
  const pixels = await step("resize", () => resize(photograph));
  self.postMessage({ id, input: { pixels, animated: photograph.animated } });
  session ??= load();
  const { run, device } = await step("load", () => session);
  report("Running the model");
  const { input } = configuration;
  const values = toInput(pixels, input.range);
  const logits = await step("model", () => run(values));
  return { logits, times, device };
}

/** Crops and resizes a photograph, and frees its bitmap. */
function resize(photograph) {
  const { input } = configuration;
  const crop = centralCrop(photograph, input);
  const resizer = new Resizer(crop, input);
  for (const band of bands(photograph, crop)) resizer.addRows(band);
  photograph.bitmap.close();
  return resizer.finish();
}

/** Tells the page about the work on the newest photograph. */
function report(text, done, total) {
  self.postMessage({ id: latest, progress: { text, done, total } });
}

/** Downloads model and runtime at once; a failed download is tried again next time. */
async function load() {
  try {
    const device = (await hasGpu()) ? "webgpu" : "wasm";
    const sum = addUp("Loading model and runtime");
    const [model, ort] = await Promise.all([loadModel(sum), loadRuntime(device, sum)]);
    report("Preparing the model");
    return await start(ort, model, device);
  } catch (error) {
    session = undefined;
    cache = "reload";
    throw error;
  }
}

/** Returns a function that takes the progress of one download, of several. */
function addUp(text) {
  const downloads = {};
  return (name, done, total) => {
    downloads[name] = { done, total };
    const sum = (key) => Object.values(downloads).reduce((all, one) => all + one[key], 0);
    report(text, sum("done"), sum("total"));
  };
}

function loadModel(progress) {
  const { archive, member } = configuration.model;
  progress("model", 0, member.size);
  return fetchMember(archive, member, cache, (done) =>
    progress("model", done, member.size),
  );
}

/** Returns the module of ONNX Runtime Web for a device. */
async function loadRuntime(device, progress) {
  if (typeof WebAssembly !== "object") {
    throw new Refusal("This browser has no WebAssembly, which the model runs in.");
  }
  const { script, binary, size } = configuration.runtime[device];
  progress("runtime", 0, size);
  const [ort, wasmBinary] = await Promise.all([
    import(script).catch(() => {
      throw new Refusal(`The server does not have ${script}, which runs the model.`);
    }),
    fetchPacked(binary, size, cache, (done) => progress("runtime", done, size)),
  ]);
  ort.env.wasm.wasmBinary = wasmBinary.buffer;
  // Threads share memory, which browsers allow on pages with two headers of the server.
  const threads = Math.min(MOST_THREADS, navigator.hardwareConcurrency);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
  return ort;
}

/** Says whether there is a GPU, and what the runtime's build for it needs. */
async function hasGpu() {
  if (typeof WebAssembly !== "object" || !("Suspending" in WebAssembly)) return false;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

/** Prepares the model on a device, or else in WebAssembly. */
async function start(ort, model, device) {
  try {
    return { run: await startSession(ort, model, device), device };
  } catch (error) {
    if (device === "wasm") {
      throw new Refusal(`ONNX Runtime Web can’t run this model: ${error.message}`);
    }
    const other = await loadRuntime("wasm", addUp("Loading the runtime without WebGPU"));
    return start(other, model, "wasm");
  }
}

/** Returns a function from the values of an image to its logits. */
async function startSession(ort, model, device) {
  const { input, output } = configuration;
  const loaded = await ort.InferenceSession.create(model, { executionProviders: [device] });
  const run = async (values) => {
    const images = new ort.Tensor("float32", values, [1, input.height, input.width, 3]);
    const results = await loaded.run({ [input.name]: images });
    return results[output.name].data;
  };
  await run(new Float32Array(input.height * input.width * 3)); // the first run is slow
  return run;
}
