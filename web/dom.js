// Making elements. Text goes in as text nodes only; nothing on this page is ever parsed as HTML.

/** h("li", {class: "card", "data-state": "idle"}, "text", childElement) */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** The part of a component that carries data-role="name". */
export const role = (root, name) => root.querySelector(`[data-role="${name}"]`);

/** Set text only if it differs, so that a live region does not read the same words again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Make the children of `parent` one an item: existing ones are updated, only missing ones are created. */
export function each(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => update(parent.children[index] ?? parent.appendChild(make()), item));
}

/** Fill a table's body: `cells` makes the empty cells of a row, `texts` their contents; without rows `empty` is shown. */
export function rows(body, items, cells, texts, empty) {
  if (!items.length) {
    if (body.dataset.rows !== "0") body.replaceChildren(h("tr", {}, h("td", { colspan: cells().length, class: "muted" })));
    body.dataset.rows = "0";
    say(body.rows[0].cells[0], empty);
    return;
  }
  if (body.dataset.rows !== "some") body.replaceChildren();
  body.dataset.rows = "some";
  each(body, items, () => h("tr", {}, ...cells()), (row, item) => texts(item).forEach((text, i) => say(row.cells[i], text)));
}

/** Set a custom property for the style sheet, through the CSSOM, which the policy allows. */
export function vary(element, property, value) {
  if (element.style.getPropertyValue(property) !== String(value)) element.style.setProperty(property, String(value));
  return element;
}

/** Fill a select with [value, words, whether it can be chosen], if that changed. */
export function offer(select, options) {
  const value = select.value;
  const now = JSON.stringify(options);
  if (select.dataset.options === now) return;
  select.dataset.options = now;
  select.replaceChildren(...options.map(([kind, words, there]) => h("option", { value: kind, disabled: !there }, words)));
  if (options.some(([kind]) => kind === value)) select.value = value;
}

/** Disable a button, or enable it. Disabling the focused one would drop the keyboard's place; its neighbour takes it. */
export function disable(button, off, neighbour) {
  const isFocused = document.activeElement === button;
  button.disabled = off;
  if (off && isFocused) {
    neighbour.disabled = false;
    neighbour.focus();
  }
}
