// Named bytes in the browser's Origin Private File System, where opfs.js calls them: in a worker or in the caller's thread.
// A worker has sync access handles: no copy between a file and an array, and no objects of JavaScript that wait for a
// garbage collection. They are used for writes and reads; where a file has one handle at a time, reads wait for each
// other. A page reads files through getFile and writes them through createWritable. Chromium 153, 177 MB from storage
// in a persistent profile: 0.54 s of the page's process and 0.14 s of the browser's, 0.89 s and 0.44 s through getFile.
// https://fs.spec.whatwg.org
import { arriving } from "./digest.js";

const PIECE = 1 << 22; // bytes copied at a time, because a view of Python's memory is not valid across an await
const READ = 1 << 19; // bytes read at a time, and of an array that a stream reads into
const SPARE = 16; // such arrays to keep for later reads: the browser collects garbage late
const SMALL = 1 << 15; // bytes below which a stream does not pay

const spare = [];
const WRITTEN = 1 << 20; // bytes written between two checks of the clock
const SLICE = 30; // milliseconds after which other events get a turn

/** Open the folder, or create it. Throws if the browser has no storage. */
export async function openStore(folder) {
  if (!globalThis.navigator?.storage?.getDirectory) throw new DOMException("it has no private file system", "NotSupportedError");
  const root = await navigator.storage.getDirectory();
  const store = { dir: await root.getDirectoryHandle(folder, { create: true }) };
  const has = (method) => typeof FileSystemFileHandle.prototype[method] === "function";
  store.sync = has("createSyncAccessHandle"); // in dedicated workers only
  store.shares = store.sync && "mode" in FileSystemSyncAccessHandle.prototype; // several readers: Chromium from 121 on
  store.moves = has("move");
  store.writes = store.sync || has("createWritable");
  return store;
}

/** List [[name, bytes, milliseconds since 1970 of the last write], ...] as JSON. */
export async function list(store) {
  const found = [];
  for await (const [name, handle] of store.dir.entries()) {
    try {
      const file = await handle.getFile();
      found.push([name, file.size, file.lastModified]);
    } catch { /* removed by another tab in the meantime */ }
  }
  return JSON.stringify(found);
}

/** Return the size of a file in bytes; -1 if there is none. */
export async function size(store, name) {
  try {
    return (await (await store.dir.getFileHandle(name)).getFile()).size;
  } catch (error) {
    if (error.name === "NotFoundError") return -1;
    throw error;
  }
}

/**
 * Read bytes of a file from `start` on into `bytes`, and return their digests; they are parts of `sizes`. Throws if the
 * file is shorter. A caller that stops waiting must not use `bytes` again: they may still be written to.
 */
export async function read(store, name, start, sizes, bytes) {
  const handle = await store.dir.getFileHandle(name);
  const digests = arriving(sizes);
  const there = store.shares ? readAt(handle, start, bytes) : store.sync && alone(name, () => readAt(handle, start, bytes));
  if (!await there) await readStream(await handle.getFile(), start, bytes, digests);
  return digests.end(bytes);
}

// Read through a handle; false if it is refused, while another tab writes the file: getFile returns its last complete
// state. Nothing is awaited while it is open, for milliseconds in which other tabs cannot write or remove the file.
async function readAt(handle, start, bytes) {
  const access = await handle.createSyncAccessHandle({ mode: "read-only" }).catch(() => null);
  if (!access) return false;
  try {
    for (let at = 0; at < bytes.length;) {
      const some = access.read(bytes.subarray(at, at + READ), { at: start + at });
      if (!some) throw new DOMException(`${at} of ${bytes.length} bytes`, "DataError");
      at += some;
    }
    return true;
  } finally {
    access.close();
  }
}

async function readStream(whole, start, bytes, digests) {
  const { length } = bytes;
  const file = start || whole.size > length ? whole.slice(start, start + length) : whole; // a slice waits for another process
  if (file.size < length) throw new DOMException(`${file.size} of ${length} bytes`, "DataError");
  if (length <= SMALL) {
    bytes.set(new Uint8Array(await file.arrayBuffer()));
    return;
  }
  const reader = file.stream().getReader({ mode: "byob" });
  let own = spare.pop() ?? new Uint8Array(READ);
  try {
    for (let at = 0; at < length;) {
      const { value, done } = await reader.read(own); // it takes the array, and gives it back
      if (done) throw new DOMException(`${at} of ${length} bytes`, "DataError");
      bytes.set(value, at);
      own = new Uint8Array(value.buffer);
      at += value.length;
      await digests.add(bytes, at);
    }
  } finally {
    reader.cancel().catch(() => {}); // else its pipe stays until garbage is collected
  }
  if (spare.length < SPARE) spare.push(own);
}

/** Read all bytes of a file. */
export async function text(store, name) {
  const file = await (await store.dir.getFileHandle(name)).getFile();
  return new Uint8Array(await file.arrayBuffer());
}

/** Write a file whole or not at all: under `draft` first, or in the browser's own swap file. */
export const write = (store, name, draft, source) => alone(name, async () => {
  if (!store.sync) {
    // On a full disk Chromium reports that, or a broken pipe (AbortError); a second attempt mostly reports the cause.
    return writeSwapped(store, name, source).catch((error) => {
      if (error.name !== "AbortError") throw error;
      return writeSwapped(store, name, source);
    });
  }
  const place = store.moves ? draft : name; // without renaming, a crash leaves a part, which fails its checksum
  const handle = await store.dir.getFileHandle(place, { create: true });
  try {
    await writeAt(handle, 0, source);
    if (store.moves) await handle.move(store.dir, name);
  } catch (error) {
    await store.dir.removeEntry(place).catch(() => {});
    throw error;
  }
});

/** Append to an existing file. */
export const append = (store, name, source) => alone(name, async () => {
  const handle = await store.dir.getFileHandle(name);
  if (store.sync) return writeAt(handle, null, source);
  return writeSwapped(store, name, source, true);
});

/** Remove a file; does nothing if there is none. */
export async function remove(store, name) {
  try {
    await store.dir.removeEntry(name);
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
  }
}

// Serialise the writes of several tabs to one file.
function alone(name, work) {
  return navigator.locks ? navigator.locks.request(`tensorcommons/${name}`, work) : work();
}

// Write through an exclusive handle. `at` null is the end of the file, which is truncated again if the disk is full.
// Not flushed: that blocks the thread until the disk has the bytes, and what a crash loses fails its checksum.
async function writeAt(handle, at, source) {
  const access = await handle.createSyncAccessHandle();
  try {
    const end = await access.getSize(); // Safari before 16.4 answers with promises
    const start = at ?? end;
    if (start < end) await access.truncate(start);
    const length = lend(source, (bytes) => bytes.length);
    let begun = performance.now();
    for (let done = 0; done < length;) {
      const some = lend(source, (bytes) => access.write(bytes.subarray(done, done + WRITTEN), { at: start + done }));
      if (some !== Math.min(WRITTEN, length - done)) {
        await access.truncate(start);
        throw new DOMException("a short write", "QuotaExceededError");
      }
      done += some;
      if (performance.now() - begun > SLICE) {
        await new Promise((go) => setTimeout(go));
        begun = performance.now();
      }
    }
  } finally {
    await access.close();
  }
}

async function writeSwapped(store, name, source, appends = false) {
  const handle = await store.dir.getFileHandle(name, { create: !appends });
  const stream = await handle.createWritable({ keepExistingData: appends });
  try {
    if (appends) await stream.seek((await handle.getFile()).size);
    const length = lend(source, (bytes) => bytes.length);
    if (source instanceof Uint8Array) await stream.write(source);
    else for (let at = 0; at < length; at += PIECE) await stream.write(lend(source, (bytes) => bytes.slice(at, at + PIECE)));
    await stream.close();
  } catch (error) {
    await stream.abort().catch(() => {});
    if ((await handle.getFile()).size === 0) await store.dir.removeEntry(name).catch(() => {});
    throw error;
  }
}

// Borrow Python's memory for one synchronous use, because it may move during an await. An array is used as it is.
export function lend(buffer, use) {
  if (buffer instanceof Uint8Array) return use(buffer);
  const view = buffer.getBuffer("u8");
  try {
    return use(view.data);
  } finally {
    view.release();
  }
}
