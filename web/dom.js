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

/** Sets text only when it differs, so that a live region does not speak the same words again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A custom property, for the style sheet to draw with; through the CSSOM, which the policy allows. */
export function vary(element, property, value) {
  element.style.setProperty(property, String(value));
  return element;
}
