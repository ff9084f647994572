// Pictures of this device: files and samples as pixels, read without addresses of blobs, which the policy forbids.

const LONGEST = 1024; // pixels of an edge; the models read 224, so more would cost memory only

/** Decode a File or Blob: {name, bitmap, width, height, pixels}, made smaller where it is large. Throws an Error in plain words. */
export async function picture(file, name = file.name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} is not a picture that this browser can read. Choose a PNG, JPEG, WebP or GIF file.`);
  }
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((size) => Math.max(1, Math.round(size * scale)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // under transparency
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { name, width, height, pixels: context.getImageData(0, 0, width, height) };
}

/** Draw a picture on a canvas; with a map (uint8, dims [height, width]), what it marks stays bright and the rest is dimmed. */
export function draw(canvas, { width, height, pixels }, map) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.putImageData(pixels, 0, 0);
  if (!map) return;
  const [rows, columns] = map.dims;
  const shade = new ImageData(columns, rows);
  const brightest = Math.max(1, ...map.data);
  map.data.forEach((value, i) => { shade.data[4 * i + 3] = 205 * (1 - value / brightest); });
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(shade, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, width, height);
}

const PLACES = [["top left", "top", "top right"], ["left", "centre", "right"], ["bottom left", "bottom", "bottom right"]];

/** Where a map is strongest, in words, for those who do not see it. */
export function strongest({ data, dims: [rows, columns] }) {
  const sums = Array.from({ length: 9 }, () => 0);
  data.forEach((value, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    sums[3 * Math.floor((3 * row) / rows) + Math.floor((3 * column) / columns)] += value;
  });
  const best = sums.indexOf(Math.max(...sums));
  return PLACES[Math.floor(best / 3)][best % 3];
}
