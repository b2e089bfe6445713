/** Answers from the network where there is one, and from what was kept where there is none. */

const CACHE = "impasto";
const PAGE = [
  "./",
  "page.css",
  "theme.js",
  "page.js",
  "studio.js",
  "stage.js",
  "styles.js",
  "photo.js",
  "arrivals.js",
  "camera.js",
  "engine.js",
  "painter-worker.js",
  "server.js",
  "save.js",
  "offline.js",
  "icon.svg",
  "manifest.webmanifest",
  "sample.jpg",
  "v1/styles",
].map((name) => new URL(name, self.registration.scope).href);
const KEPT = ["ort/", "v1/packs/"].map((folder) => new URL(folder, self.registration.scope).href);

self.addEventListener("install", (event) => event.waitUntil(keep(PAGE).then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("message", (event) => {
  const [port] = event.ports;
  event.waitUntil(
    keep(event.data).then(
      () => port.postMessage(true),
      () => port.postMessage(false),
    ),
  );
});
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && (PAGE.includes(url) || KEPT.some((folder) => url.startsWith(folder))))
    event.respondWith(answer(event.request));
});

async function keep(files) {
  const cache = await caches.open(CACHE);
  await cache.addAll(files);
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = () => cache.match(request.url, { ignoreVary: true });
  try {
    const response = await fetch(request);
    if (response.status >= 500) return (await kept()) ?? response;
    if (response.ok) await store(cache, request.url, response.clone());
    return response;
  } catch (error) {
    const response = await kept();
    if (response) return response;
    throw error;
  }
}

/** Keep an answer, and let go of what was kept for the same file with another hash. */
async function store(cache, url, response) {
  await cache.put(url, response);
  const { pathname, search } = new URL(url);
  for (const { url: other } of search ? await cache.keys() : []) {
    const { pathname: otherPath, search: otherSearch } = new URL(other);
    if (otherPath === pathname && otherSearch !== search) await cache.delete(other);
  }
}
