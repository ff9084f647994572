// Checks that run inside the page; each returns a list of faults. test_look.py imports this file there.

const describe = (element) => `${element.tagName}#${element.id}.${element.className}`;

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

/** Return whether the element with the keyboard focus is on the screen and outlined, and which it is. */
export function focusSeen() {
  const element = document.activeElement;
  const box = element.getBoundingClientRect();
  const seen = getComputedStyle(element).outlineStyle !== "none" && box.bottom > 0 && box.top < innerHeight;
  return { seen: element === document.body || seen, what: element.id || element.textContent.trim().slice(0, 40) };
}
