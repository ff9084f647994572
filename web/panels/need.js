// In place of a result: the model that it needs, what loading that costs, and a button that loads it here.
import { h, say } from "../dom.js";
import { explain, showFailure } from "../failures.js";
import { costWords } from "./cost.js";
import { loadingBar } from "./loading.js";

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
  const loading = loadingBar(model.title, () => calls.cancelLoad(id));
  const error = h("div", { class: "error", role: "alert" });
  const place = h("div", { class: "needs", "data-need": id }, ask, about, loading.element, error);
  let priced = null; // how often models had been loaded when the cost was computed

  place.refresh = async () => {
    place.hidden = calls.state(id) === "loaded"; // the result replaces it when its run has ended
    const isBusy = ["queued", "loading"].includes(calls.state(id));
    ask.hidden = about.hidden = isBusy;
    loading.show(isBusy);
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
    const load = calls.load(id, loading.progress);
    place.refresh();
    loading.focus();
    const panel = place.closest("section");
    const { failure } = await load;
    const { hasFocus } = loading;
    place.refresh();
    if (hasFocus) (calls.state(id) === "loaded" ? panel.querySelector("textarea, input") : button).focus();
    if (failure) showFailure(error, failure, "Not loaded.");
  });
  place.refresh();
  return place;
}
