// The panel of chat: SmolLM2 answers, streamed and stoppable, with what it costs in speed and memory.
import { TITLES } from "../devices.js";
import { byId, h, role, say } from "../dom.js";
import { showFailure } from "../failures.js";
import { bytes, duration, plural } from "../format.js";
import { drawStrip } from "../run-strip.js";
import { keep, keepField, kept } from "../session.js";
import { codeOf } from "./code.js";
import { showNeed } from "./need.js";
import { showState } from "./state.js";

const SMOLLM2 = "SmolLM2-135M-Instruct";
const WHO = { user: "You", assistant: "SmolLM2" };

export class ChatPanel {
  #messages = kept("chat", []); // {role, content}; the last is a question if its answer was stopped at once
  #log = byId("chat-log");
  #text = byId("chat-text");
  #send = byId("chat-send");
  #again = byId("chat-again");
  #clear = byId("chat-clear");
  #isComplete = this.#messages.at(-1)?.role !== "user"; // the last answer was not stopped
  #isRunning = false;
  wanted = []; // nothing can be sent before the model is loaded

  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    byId("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#ask();
    });
    role(panel, "cancel").addEventListener("click", () => calls.cancel("chat"));
    this.#again.addEventListener("click", () => {
      if (this.#messages.at(-1).role === "assistant") this.#messages.pop();
      this.#draw();
      this.#text.focus(); // the button goes
      this.#answer();
    });
    this.#clear.addEventListener("click", () => {
      this.#messages = [];
      this.#isComplete = true;
      keep("chat", []);
      this.#draw();
      this.#about("", null);
      role(this.panel, "error").replaceChildren();
      this.#state("idle", "");
      this.#text.focus();
    });
    keepField(this.#text, "chat-text");
    this.#draw();
    this.#refresh();
    panel.append(codeOf("chat"));
  }

  uses(id) {
    return id === SMOLLM2;
  }

  changed() {
    const place = byId("chat-need");
    if (this.calls.isLoaded(SMOLLM2)) place.replaceChildren();
    else showNeed(place, SMOLLM2, this.calls, "to begin");
    this.#refresh();
  }

  #refresh() {
    const isReady = !this.#isRunning && this.calls.isLoaded(SMOLLM2);
    this.#send.disabled = !isReady;
    this.#again.hidden = !isReady || this.#isComplete;
    this.#clear.disabled = this.#isRunning || !this.#messages.length;
  }

  #draw() {
    this.#log.replaceChildren();
    for (const message of this.#messages) this.#show(message);
  }

  #show({ role: who, content }) {
    const text = h("p", { dir: "auto" }, content);
    this.#log.append(h("li", { "data-role": who }, h("b", { class: "small" }, WHO[who]), text));
    this.#log.scrollTop = this.#log.scrollHeight;
    return text;
  }

  #ask() {
    const content = this.#text.value.trim();
    if (!content || this.#send.disabled) return;
    if (this.#messages.at(-1)?.role === "user") this.#messages.pop(); // it was stopped before its answer began
    this.#type("");
    this.#messages.push({ role: "user", content });
    this.#draw();
    this.#answer();
  }

  // Answer the last message, a question.
  async #answer() {
    const answer = { role: "assistant", content: "" };
    const place = this.#show(answer);
    const most = Number(byId("chat-tokens").value);
    role(this.panel, "error").replaceChildren();
    this.#about("", null);
    this.#isComplete = false;
    keep("chat", this.#messages); // a reload keeps the question
    this.#state("running", "Reading the question…");
    let count = 0;
    try {
      const request = { messages: this.#messages, max_new_tokens: most };
      const result = await this.calls.run("chat", request, (part) => {
        if (part.part !== "text") return;
        count += 1;
        answer.content += part.text;
        place.textContent = answer.content;
        this.#log.scrollTop = this.#log.scrollHeight;
        if (part.seconds > 0) say(role(this.panel, "status"), `${((count - 1) / part.seconds).toFixed(1)} tokens per second`);
      });
      this.#isComplete = !result.cancelled;
      if (answer.content) this.#messages.push(answer);
      this.#state(result.cancelled ? "cancelled" : "done", result.cancelled ? "Stopped" : duration(result.stats.seconds));
      if (!result.cancelled) this.#about(wordsOf(result, most), result.stats);
      say(byId("chat-said"), result.cancelled ? "Stopped." : `SmolLM2: ${answer.content}`); // once, when it is complete
    } catch (failure) {
      this.#failed(failure);
    }
    if (!answer.content) place.parentElement.remove();
    keep("chat", this.#messages);
    this.#refresh();
  }

  // The question goes back to the field, so that it can be changed and is not part of what follows.
  #failed(failure) {
    const { content } = this.#messages.pop();
    if (!this.#text.value) this.#type(content);
    this.#draw();
    this.#isComplete = true;
    this.#state("error", "Failed");
    showFailure(role(this.panel, "error"), failure);
    if (/no room for new tokens/.test(failure.message)) {
      const rest = this.#messages.length ? "Clear the conversation, or send a shorter message." : "Send a shorter message.";
      role(this.panel, "error").replaceChildren(h("p", {}, h("b", {}, "This is longer than the model can read."), ` ${rest}`),
        h("p", { class: "details" }, `Details: ${failure.message}`));
    }
  }

  #type(text) {
    this.#text.value = text;
    keep("chat-text", text);
  }

  #about(words, stats) {
    say(byId("chat-about"), words);
    drawStrip(role(this.panel, "stats"), stats, "the last token");
  }

  #state(state, words) {
    this.#isRunning = state === "running";
    showState(this.panel, state, words, this.#text);
    this.#refresh();
  }
}

function wordsOf({ stats, tokens, first_seconds: first, tokens_per_second: speed, evicted_bytes: evicted, restored_bytes: restored, moved_bytes: moved }, most) {
  return [
    `${plural(tokens, "token")}, the first after ${duration(first)}`,
    ...(speed ? [`${speed.toFixed(1)} tokens per second on ${TITLES[stats.device] ?? stats.device}`] : []),
    ...(tokens >= most ? [`ended at the limit of ${plural(most, "token")}`] : []),
    ...(moved ? [`the memory limit is smaller than this model: ${bytes(moved)} of its weights moved to the device for each token`] : []),
    ...(!moved && (evicted || restored) ? [`to stay under the memory limit, ${bytes(evicted)} of weights left the device, and ${bytes(restored)} came back`] : []),
  ].join(" · ");
}
