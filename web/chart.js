// Bytes over time: the weights with sharing and as separate copies, and everything on the device. uPlot draws; a line
// of text states the same.
import "./language.js"; // before uPlot
import uPlot from "./vendor/uPlot.esm.js";
import { say } from "./dom.js";
import { bytes, clock, megabytes } from "./format.js";

const MOST = 1200; // points; beyond it every second old point is dropped
const HEIGHT = 220;

export class MemoryChart {
  #place;
  #caption;
  #data = [[0], [0], [0], [0], [null]]; // seconds, weights stored once, as separate copies, everything on the device, the limit
  #plot = null;
  #events;

  /** events.all are marked: {kind, at}. */
  constructor(place, caption, events) {
    this.#events = events;
    this.#place = place;
    this.#caption = caption;
    this.#build();
    new ResizeObserver(() => this.#plot.setSize({ width: this.#width(), height: HEIGHT })).observe(place);
    addEventListener("themechange", () => this.#build());
  }

  add(report, at) {
    if (this.#data[0].length >= MOST) this.#data = this.#data.map((column) => column.filter((_, i) => i % 2 === 0 || i > MOST / 2));
    this.#data[0].push(at);
    this.#data[1].push(report.unique_weight_bytes);
    this.#data[2].push(report.separate_weight_bytes);
    this.#data[3].push(report.device_bytes);
    this.#data[4].push(report.limit_bytes);
  }

  draw() {
    this.#plot.setData(this.#data);
    this.#say(null);
  }

  // The limit is drawn where the bytes come near to it; far above them it would flatten all else.
  #highest() {
    return Math.max(2 ** 20, ...this.#data.slice(1, 4).map((column) => Math.max(...column)));
  }

  #width() {
    return Math.max(200, this.#place.clientWidth);
  }

  #say(index) {
    const [x, shared, separate, all] = this.#data;
    const at = index ?? x.length - 1;
    const when = index == null || at === x.length - 1 ? "Now" : `At ${clock(x[at])}`;
    say(this.#caption, `${when}: weights take ${bytes(shared[at])}, ${bytes(separate[at])} as separate copies; everything on the device takes ${bytes(all[at])}.`);
  }

  // A line at each event, with its kind in words where there is room.
  #mark({ ctx, bbox, valToPos }, colour) {
    let free = -Infinity;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(this.#caption).fontFamily}`;
    ctx.textAlign = "left";
    ctx.fillStyle = colour;
    for (const { kind, at } of this.#events.all) {
      const x = Math.round(valToPos(at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      const { width } = ctx.measureText(kind);
      const fits = x - width / 2 > free;
      ctx.globalAlpha = fits ? 0.7 : 0.25;
      ctx.fillRect(x, bbox.top, devicePixelRatio, bbox.height);
      if (!fits) continue;
      ctx.globalAlpha = 1;
      const left = Math.max(bbox.left, Math.min(x - width / 2, bbox.left + bbox.width - width));
      ctx.fillText(kind, left, bbox.top - 5 * devicePixelRatio);
      free = left + width + 6 * devicePixelRatio;
    }
    ctx.restore();
  }

  #build() {
    this.#plot?.destroy();
    // uPlot paints on a canvas, which has no CSS variables: the colours are those of the keys beside the chart.
    const colour = (selector) => getComputedStyle(document.querySelector(selector)).borderTopColor;
    const style = getComputedStyle(this.#caption);
    const axis = {
      stroke: style.color,
      font: `12px ${style.fontFamily}`,
      grid: { stroke: getComputedStyle(this.#place).borderTopColor, width: 1 },
      ticks: { show: false },
    };
    const stepped = uPlot.paths.stepped({ align: 1 });
    this.#plot = new uPlot({
      width: this.#width(),
      height: HEIGHT,
      legend: { show: false },
      padding: [18, null, null, null],
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { x: { time: false }, y: { range: () => [0, this.#highest() * 1.12] } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map(clock), space: 60, size: 28 },
        { ...axis, values: (_, ticks) => ticks.map((tick) => `${Math.round(megabytes(tick))} MB`), size: 68, incrs: increments() },
      ],
      series: [
        {},
        { stroke: colour(".key.with"), width: 2, paths: stepped, points: { show: false } },
        { stroke: colour(".key.without"), width: 2, dash: [6, 4], paths: stepped, points: { show: false } },
        { stroke: colour(".key.all"), width: 1.5, dash: [2, 3], paths: stepped, points: { show: false } },
        { stroke: colour(".key.limit"), width: 1, paths: stepped, points: { show: false } },
      ],
      hooks: { setCursor: [(plot) => this.#say(plot.cursor.idx ?? null)], draw: [(plot) => this.#mark(plot, style.color)] },
    }, this.#data, this.#place);
  }
}

// Whole megabytes of 2**20 on the axis.
function increments() {
  return [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].map((step) => step * 2 ** 20);
}
