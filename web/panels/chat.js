// The panel of chat: SmolLM2 answers, streamed and stoppable, with what it costs in speed and memory.
import { TITLES } from "../devices.js";
import { byId, h, role, say } from "../dom.js";
import { showFailure } from "../failures.js";
import { bytes, plural, seconds } from "../format.js";
import { keep, kept } from "../session.js";
import { codeOf } from "./code.js";
import { showNeed } from "./need.js";

const SMOLLM2 = "SmolLM2-135M-Instruct";
const WHO = { user: "You", assistant: "SmolLM2" };

export class ChatPanel {
  #messages = kept("chat", []); // {role, content}
  #log = byId("chat-log");
  #text = byId("chat-text");
  #send = byId("chat-send");
  #clear = byId("chat-clear");
  #isRunning = false;

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
    this.#clear.addEventListener("click", () => {
      this.#messages = [];
      keep("chat", []);
      this.#log.replaceChildren();
      say(role(this.panel, "stats"), "");
      this.#refresh();
      this.#text.focus();
    });
    for (const message of this.#messages) this.#show(message);
    this.#refresh();
    panel.append(codeOf("chat"));
  }

  uses(id) {
    return id === SMOLLM2;
  }

  changed() {
    const place = byId("chat-need");
    if (this.calls.isLoaded(SMOLLM2)) place.replaceChildren();
    else showNeed(place, SMOLLM2, this.calls, "to chat");
    this.#refresh();
  }

  #refresh() {
    this.#send.disabled = this.#isRunning || !this.calls.isLoaded(SMOLLM2);
    this.#clear.disabled = this.#isRunning || !this.#messages.length;
  }

  #show({ role: who, content }) {
    const text = h("p", { dir: "auto" }, content);
    this.#log.append(h("li", { "data-role": who }, h("b", { class: "small" }, WHO[who]), text));
    this.#log.scrollTop = this.#log.scrollHeight;
    return text;
  }

  async #ask() {
    const content = this.#text.value.trim();
    if (!content || this.#send.disabled) return;
    this.#text.value = "";
    this.#messages.push({ role: "user", content });
    this.#show(this.#messages.at(-1));
    const answer = { role: "assistant", content: "" };
    const place = this.#show(answer);
    role(this.panel, "error").replaceChildren();
    this.#state("running", "Reading the question…");
    let count = 0;
    try {
      const request = { messages: this.#messages, max_new_tokens: Number(byId("chat-tokens").value) };
      const result = await this.calls.run("chat", request, (part) => {
        if (part.part !== "text") return;
        count += 1;
        answer.content += part.text;
        place.textContent = answer.content;
        this.#log.scrollTop = this.#log.scrollHeight;
        if (part.seconds > 0) say(role(this.panel, "status"), `${((count - 1) / part.seconds).toFixed(1)} tokens per second`);
      });
      this.#state(result.cancelled ? "cancelled" : "done", result.cancelled ? "Stopped" : seconds(result.stats.seconds));
      if (!result.cancelled) say(role(this.panel, "stats"), this.#about(result));
      say(byId("chat-said"), result.cancelled ? "Stopped." : `SmolLM2: ${answer.content}`); // once, when it is complete
    } catch (failure) {
      this.#state("error", "Failed");
      showFailure(role(this.panel, "error"), failure);
    }
    if (answer.content) this.#messages.push(answer);
    else place.parentElement.remove();
    keep("chat", this.#messages);
    this.#refresh();
  }

  #about({ stats, tokens, first_seconds: first, tokens_per_second: speed, evicted_bytes: evicted, restored_bytes: restored, moved_bytes: moved }) {
    return [
      `${plural(tokens, "token")}, the first after ${seconds(first)}`,
      ...(speed ? [`${speed.toFixed(1)} tokens per second on ${TITLES[stats.device] ?? stats.device}`] : []),
      ...(moved ? [`the memory limit is smaller than this model: ${bytes(moved)} of its weights moved to the device for each token`] : []),
      ...(!moved && (evicted || restored) ? [`to stay under the memory limit, ${bytes(evicted)} of weights left the device, and ${bytes(restored)} came back`] : []),
    ].join(" · ");
  }

  #state(state, words) {
    const cancel = role(this.panel, "cancel");
    this.#isRunning = state === "running";
    this.panel.dataset.state = state;
    this.#log.setAttribute("aria-busy", String(this.#isRunning));
    if (!this.#isRunning && document.activeElement === cancel) this.#text.focus();
    cancel.hidden = !this.#isRunning;
    say(role(this.panel, "status"), words);
    this.#refresh();
  }
}
