// In place of a result: the model that it needs, what loading that costs, and a button that loads it here.
import { h, say } from "../dom.js";
import { explain, showFailure } from "../failures.js";
import { megabytes } from "../format.js";
import { costWords } from "./cost.js";

/**
 * Show in `place` that the model `id` is needed; what is shown already stays, so that a load and the focus go on.
 * calls: model(id), state(id), cost(id), loads(), load(id, onProgress) → {failure}, cancelLoad(id)
 */
export function showNeed(place, id, calls, purpose = "to see this") {
  const before = place.firstElementChild;
  if (before?.dataset.need === id) before.refresh();
  else place.replaceChildren(need(id, calls, purpose));
}

function need(id, calls, purpose) {
  const model = calls.model(id);
  if (!model || model.absent) {
    const absent = h("p", { class: "needs small", "data-need": id }, `${model?.title ?? id} is not on this site, which was built without the large models.`);
    return Object.assign(absent, { refresh() {} });
  }
  const button = h("button", { type: "button", class: "primary" }, `Load ${model.title}`);
  const ask = h("p", { class: "small" }, button, ` ${purpose}.`);
  const about = h("p", { class: "small muted num", "data-role": "cost" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Loading ${model.title}` });
  const count = h("span", { class: "small num" });
  const stop = h("button", { type: "button" }, "Cancel", h("span", { class: "sr" }, ` loading ${model.title}`));
  const loading = h("div", { class: "loading" }, bar, count, stop);
  const error = h("div", { class: "error", role: "alert" });
  const place = h("div", { class: "needs", "data-need": id }, ask, about, loading, error);
  let priced = null; // how often models had been loaded when the cost was computed

  place.refresh = async () => {
    place.hidden = calls.state(id) === "loaded"; // the result replaces it when its run has ended
    const isBusy = ["queued", "loading"].includes(calls.state(id));
    ask.hidden = about.hidden = isBusy;
    loading.hidden = !isBusy;
    if (!count.textContent) say(count, `${model.title} is waiting for its turn`);
    if (isBusy || place.hidden || priced === calls.loads()) return;
    priced = calls.loads();
    try {
      say(about, costWords(await calls.cost(id)));
    } catch (failure) {
      say(about, `What this costs is not known. ${explain(failure).what}`);
    }
  };
  button.addEventListener("click", async () => {
    error.replaceChildren();
    const load = calls.load(id, ({ loaded, total, shared }) => {
      bar.value = total ? loaded / total : 0;
      say(count, `${megabytes(loaded)} of ${megabytes(total)} MB · ${megabytes(shared)} MB shared`);
    });
    place.refresh();
    stop.focus();
    const panel = place.closest("section");
    const { failure } = await load;
    const isLost = document.activeElement === document.body || loading.contains(document.activeElement);
    say(count, "");
    place.refresh();
    if (isLost) (calls.state(id) === "loaded" ? panel.querySelector("textarea, input") : button).focus();
    if (failure) showFailure(error, failure, "Not loaded.");
  });
  stop.addEventListener("click", () => calls.cancelLoad(id));
  place.refresh();
  return place;
}
