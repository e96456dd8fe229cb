// Keeps page, runtime and model for times without a connection. What is searched or measured always asks the server.

const VERSION = new URL(location.href).searchParams.get("version");
const CACHE = `edgecsd-${VERSION}`;

self.addEventListener("install", (event) => event.waitUntil(keepAll()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin || pathname.startsWith("/photos/")) return;
  event.respondWith(answer(request, pathname));
});

async function keepAll() {
  const about = await fetch("/about", { cache: "no-store" });
  if (!about.ok) throw new Error(`status ${about.status}`);
  const { version, offline } = await about.clone().json();
  if (version !== VERSION) throw new Error("the server has changed: reload the page");
  const cache = await caches.open(CACHE);
  await cache.put("/about", about);
  await cache.addAll(offline);
  await self.skipWaiting();
}

async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith("edgecsd-") && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

// Large files that never change come from the cache, all others from the server while it can be reached.
async function answer(request, pathname) {
  const cache = await caches.open(CACHE);
  const unchanging = pathname.startsWith("/runtime/") || pathname.startsWith("/model/");
  const kept = await cache.match(request, { ignoreSearch: true });
  if (unchanging && kept) return kept;
  try {
    const response = await fetch(request);
    return kept && response.status === 401 ? kept : response; // the page then says that the server wants its code
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}
