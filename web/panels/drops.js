// Files that are dropped on the page: a panel takes them, or nothing happens. Without this the browser would leave the page.

const hasFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files"); // dragged text goes where the browser puts it

/** Pass the files that are dropped on `panel` to `take`, as [path, File] with those of folders. */
export function takeDrops(panel, take) {
  panel.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
  });
  panel.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    take(await dropped(event.dataTransfer));
  });
}

/** Refuse files that are dropped where no panel takes them. */
export function refuseOtherDrops() {
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  });
  addEventListener("drop", (event) => { if (hasFiles(event)) event.preventDefault(); });
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => [file.name, file]);
  const found = [];
  const visit = async (entry, path) => {
    if (entry.isFile) {
      found.push([`${path}${entry.name}`, await new Promise((resolve, reject) => entry.file(resolve, reject))]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const each of some) await visit(each, `${path}${entry.name}/`);
    }
  };
  for (const entry of entries) await visit(entry, "");
  return found;
}
