// Pixels of what a page has: canvases, ImageData, bitmaps. A canvas holds colours multiplied by their alpha, so what is
// transparent comes back black; only ImageData keeps it.

/** The pixels of a JPEG, by the browser's own decoder, turned as its EXIF data says. */
export async function decode(bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
  try {
    return pixels(bitmap);
  } finally {
    bitmap.close();
  }
}

/** Width, height and RGBA bytes of an ImageData, a canvas, an ImageBitmap or another image source; null for others. */
export function pixels(image) {
  if (image?.data?.length === 4 * image?.width * image?.height) {
    return { width: image.width, height: image.height, data: image.data };
  }
  const width = image?.naturalWidth || image?.videoWidth || image?.width;
  const height = image?.naturalHeight || image?.videoHeight || image?.height;
  if (!(width > 0 && height > 0)) {
    return null;
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}
