// Checks that run inside the page; each returns a list of faults. test_look.py imports this file there.

const luminance = (colour) => colour
  .map((channel) => channel / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);

const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

function blend(under, colour) {
  canvas.fillStyle = `rgb(${under.join(" ")})`;
  canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function background(element) {
  const parents = [];
  for (let parent = element; parent; parent = parent.parentElement) parents.unshift(parent);
  return parents.reduce((under, parent) => blend(under, getComputedStyle(parent).backgroundColor), [255, 255, 255]);
}

const describe = (element) => `${element.tagName}#${element.id}.${element.className}`;

/** List texts with less contrast than WCAG 2.2, 1.4.3 requires: 4.5 to 1, or 3 to 1 for large text, unless disabled. */
export function lowContrast() {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const text = node.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest(".sr, .skip, :disabled")) continue;
    const style = getComputedStyle(element);
    const under = background(element);
    const [light, dark] = [luminance(blend(under, style.color)), luminance(under)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${describe(element)} "${text.slice(0, 40)}"`);
  }
  return found;
}

/** List elements that extend beyond the right edge of the screen, other than inside a region that scrolls. */
export function overflowing() {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const out = [...document.querySelectorAll("body *")]
    .filter((element) => element.getBoundingClientRect().right > width + 1 && !element.closest(".scroll"));
  return ["the page scrolls sideways", ...out.map(describe)];
}

/** List regions that have to be scrolled sideways and texts that are cut off. A sentence in the matrix may be. */
export function cut() {
  const candidates = [...document.querySelectorAll(".scroll, .label, td, th, dd, button, select, h2, h3")];
  return candidates
    .filter((element) => element.checkVisibility() && !element.matches(".matrix tbody th") && element.scrollWidth > element.clientWidth + 1)
    .filter((element) => element.clientWidth > 0 && getComputedStyle(element).display !== "inline")
    .map((element) => `${describe(element)} "${element.textContent.trim().slice(0, 30)}" ${element.scrollWidth} > ${element.clientWidth}`);
}

const idList = (element, attribute) => (element.getAttribute(attribute) ?? "").split(/\s+/).filter(Boolean);

function name(element) {
  const parts = [
    element.getAttribute("aria-label"),
    ...[...(element.labels ?? [])].map((label) => label.textContent),
    ...idList(element, "aria-labelledby").map((id) => document.getElementById(id)?.textContent),
    element.matches("button, a") ? element.textContent : "",
  ];
  return parts.filter(Boolean).join(" ").trim();
}

/** List controls and regions without a name, references to missing ids, repeated ids, and skipped heading levels. */
export function unnamed() {
  const named = "button, a, input, textarea, select, progress, section, [role=img], [role=region]";
  const found = [...document.querySelectorAll(named)].filter((e) => !name(e)).map((e) => e.outerHTML.slice(0, 120));
  for (const element of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    for (const id of [...idList(element, "aria-labelledby"), ...idList(element, "aria-describedby")]) {
      if (!document.getElementById(id)) found.push(`${describe(element)} refers to #${id}, which does not exist`);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  found.push(...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `#${id} twice`));
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((element) => Number(element.tagName[1]));
  levels.forEach((level, i) => {
    if (i && level > levels[i - 1] + 1) found.push(`a heading of level ${level} after one of level ${levels[i - 1]}`);
  });
  return found;
}

/** Return whether the element with the keyboard focus is on the screen and outlined, and which it is. */
export function focusSeen() {
  const element = document.activeElement;
  const box = element.getBoundingClientRect();
  const seen = getComputedStyle(element).outlineStyle !== "none" && box.bottom > 0 && box.top < innerHeight;
  return { seen: element === document.body || seen, what: element.id || element.textContent.trim().slice(0, 40) };
}
