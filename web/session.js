// What survives a reload of this tab: typed text, loaded models. Nothing outlives the tab.
const key = (name) => `tensorcommons-${name}`;

/** Return what `keep(name, …)` stored last in this tab, else `otherwise`. */
export function kept(name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(key(name))) ?? otherwise;
  } catch {
    return otherwise; // storage may be disabled
  }
}

/** Store a JSON value under a name until the tab is closed. */
export function keep(name, value) {
  try {
    sessionStorage.setItem(key(name), JSON.stringify(value));
  } catch { // storage is full or disabled: it lasts until the reload only, and what it replaces must not come back
    try { sessionStorage.removeItem(key(name)); } catch { /* disabled */ }
  }
}

/** Keep what is typed in a text field over a reload. */
export function keepField(field, name) {
  field.value = kept(name, "") || field.value;
  field.addEventListener("input", () => keep(name, field.value));
}
