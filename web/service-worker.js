// Visits without a network: answers the page's requests from a cache that has all files of one version of the site. The
// first line, from scripts/site.py, is SITE: {version, files: {path: SHA-256}}, so each version is another service worker.
// It is installed after the page is usable, and takes effect at the next visit. Models are not here: the package keeps them.

const PREFIX = "tensorcommons site ";
const CACHE = `${PREFIX}${SITE.version}`;
const address = (path) => new URL(path, registration.scope).href;
const addresses = new Set(Object.keys(SITE.files).map(address));
const PACKED = /\/start\/[^/]*\.bin$/; // gzip, which would be decompressed at each visit

// The address of a request in the cache.
function named({ url }) {
  const { origin, pathname } = new URL(url);
  return origin + pathname === registration.scope ? address("index.html") : origin + pathname;
}

// All files or none: a site that is being uploaded has files of two versions, and is tried again at the next visit.
async function fill() {
  const cache = await caches.open(CACHE);
  try {
    for (const [path, expected] of Object.entries(SITE.files)) {
      // The browser compares the hash: hashing here would leave a copy of each file as garbage in the page's process.
      const response = await fetch(address(path), { cache: "no-cache", integrity: `sha256-${expected}` });
      if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
      await cache.put(address(path), PACKED.test(address(path)) ? unpacked(response) : response);
    }
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

function unpacked({ body }) {
  return new Response(body.pipeThrough(new DecompressionStream("gzip")), { headers: { "Content-Type": "application/octet-stream" } });
}

async function dropOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
}

// A version that waits replaces this one with the last tab of this one: this page has that done, and is loaded again from
// the successor. It waits for an event, because a service worker that gets requests all the time is not replaced.
const REPLACING = `<!doctype html><html lang="en"><meta charset="utf-8"><title>tensorcommons</title><script>
navigator.serviceWorker.getRegistration().then(({ waiting }) => {
  if (!waiting) return location.reload();
  waiting.addEventListener("statechange", () => {
    if (["activated", "redundant"].includes(waiting.state)) location.reload();
  });
  waiting.postMessage("replace");
});
</script>`;

async function answer(request) {
  if (request.mode === "navigate" && registration.waiting) {
    const tabs = await clients.matchAll({ type: "window" });
    if (tabs.length <= 1) return new Response(REPLACING, { headers: { "Content-Type": "text/html" } });
  }
  const found = await (await caches.open(CACHE)).match(named(request));
  if (found) return found;
  await registration.unregister(); // the browser lost a file: this visit fails, and the next one is from the network
  return Response.error();
}

addEventListener("install", (event) => event.waitUntil(fill()));
addEventListener("activate", (event) => event.waitUntil(dropOthers()));
addEventListener("message", ({ data }) => {
  if (data === "replace") skipWaiting();
});
addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && addresses.has(named(event.request))) event.respondWith(answer(event.request));
});
