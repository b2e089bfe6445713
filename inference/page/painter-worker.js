/** A worker that runs one pack's paint.onnx with onnxruntime-web, one picture at a time. */

let runtime = null;
let session = null;

const actions = { open, paint };

self.addEventListener("message", async ({ data }) => {
  try {
    const { result, transfer } = await actions[data.action](data);
    self.postMessage({ id: data.id, result }, transfer);
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
});

/** Load the runtime's module and open the model. */
async function open({ module, folder, backend, threads, model }) {
  runtime = await import(module);
  runtime.env.wasm.wasmPaths = folder;
  runtime.env.wasm.numThreads = threads;
  runtime.env.logLevel = "error";
  session = await runtime.InferenceSession.create(new Uint8Array(model), {
    executionProviders: [backend],
    enableCpuMemArena: false,
    logSeverityLevel: 3,
  });
  return { result: {}, transfer: [] };
}

/** Paint RGBA pixels: the colours go through the network, alpha stays; `colours` is the share kept of the photo's. */
async function paint({ pixels, width, height, weights, strength, colours }) {
  const rgba = new Uint8ClampedArray(pixels);
  const count = width * height;
  const rgb = new Uint8Array(3 * count);
  for (let from = 0, to = 0; from < 4 * count; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  const feeds = {
    image: new runtime.Tensor("uint8", rgb, [1, height, width, 3]),
    style: new runtime.Tensor("float32", Float32Array.from(weights), [1, weights.length]),
    strength: new runtime.Tensor("float32", Float32Array.of(strength), [1]),
  };
  const { painted } = await session.run(feeds);
  const values = painted.data;
  if (colours > 0) keepColours(values, rgb, colours);
  for (let from = 0, to = 0; to < 4 * count; to += 4) {
    rgba[to] = values[from++];
    rgba[to + 1] = values[from++];
    rgba[to + 2] = values[from++];
  }
  painted.dispose();
  return { result: { pixels: rgba.buffer }, transfer: [rgba.buffer] };
}

/**
 * Bring the colours of a painting a share of the way to the photo's; the luma of every pixel stays, and its hue where it
 * has to come nearer to grey (Gatys et al. 2016, arXiv:1606.05897, section 4, as impasto.palette has it).
 */
function keepColours(painted, photo, share) {
  const colour = [0, 0, 0];
  for (let at = 0; at < painted.length; at += 3) {
    const luma = lumaOf(painted, at);
    const before = lumaOf(photo, at);
    let room = 1;
    for (let channel = 0; channel < 3; channel++) {
      const one = (colour[channel] = photo[at + channel] - before);
      if (one > 0) room = Math.min(room, (255 - luma) / one);
      if (one < 0) room = Math.min(room, luma / -one);
    }
    for (let channel = 0; channel < 3; channel++) {
      const mixed = painted[at + channel] + share * (luma + room * colour[channel] - painted[at + channel]);
      painted[at + channel] = Math.min(255, Math.max(0, Math.round(mixed)));
    }
  }
}

function lumaOf(rgb, at) {
  return 0.299 * rgb[at] + 0.587 * rgb[at + 1] + 0.114 * rgb[at + 2];
}
