// Progress of the start of Python, beside what a person can do already; or the reason of a failure, above the view.
import { byId, say } from "./dom.js";
import { showFailure } from "./failures.js";
import { megabytes } from "./format.js";

const STEPS = {
  download: "Downloading",
  python: "Starting Python",
  devices: "Opening the devices",
};

export class BootView {
  #section;

  constructor(section, retry) {
    this.#section = section;
    byId("boot-retry").addEventListener("click", () => {
      byId("main").focus({ preventScroll: true }); // the button goes
      retry();
    });
  }

  begin() {
    this.#section.hidden = false;
    byId("figures").hidden = true;
    say(byId("running-word"), "Opening ");
    say(byId("running-on"), "devices…");
    byId("boot-failure").hidden = true;
    byId("boot-failed").replaceChildren();
    say(byId("memory-line"), "Starting Python…");
    this.progress({ step: "download", loaded: 0, total: 0 });
  }

  progress({ step, loaded, total }) {
    say(byId("boot-step"), STEPS[step]);
    if (step !== "download") return;
    byId("boot-progress").hidden = !loaded;
    byId("boot-progress").value = total ? loaded / total : 0;
    say(byId("boot-bytes"), loaded ? `${megabytes(loaded)} of ${megabytes(total)} MB` : "");
  }

  done() {
    this.#section.hidden = true;
  }

  /** Python did not start, or has stopped after its start. */
  failed(failure, hadStarted) {
    this.#section.hidden = true;
    byId("boot-failure").hidden = false;
    byId("boot-retry").textContent = hadStarted ? "Start it again" : "Retry";
    showFailure(byId("boot-failed"), failure, hadStarted ? "" : "Python did not start.");
    byId("boot-failure").scrollIntoView({ block: "nearest" });
    say(byId("memory-line"), hadStarted ? "Python has stopped" : "Python did not start");
  }
}
