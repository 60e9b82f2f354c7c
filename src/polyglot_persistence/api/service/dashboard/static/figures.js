// The live part: where orders are, how fast they move, how long the last one waits.
import { Chart, valueAxis } from "./charts.js";
import { age, compact, count, rate } from "./format.js";
import { Panel, html } from "./html.js";

export const WINDOW_SECONDS = 300;
const GAP_SECONDS = 5;

const COLUMNS = [
  "accepted_per_second",
  "persisted_per_second",
  "indexed_per_second",
  "dirty",
  "outbox",
  "dirty_age_seconds",
  "outbox_age_seconds",
];

// The figures of the last minutes as columns of time and values; a pause is a gap in every line.
export class History {
  #figures = [];

  add(figures) {
    for (const one of figures) {
      const time = Date.parse(one.at) / 1000;
      const last = this.#figures.at(-1);
      if (last && time <= last.time) continue;
      if (last && time - last.time > GAP_SECONDS) this.#figures.push({ time: last.time + 1 });
      this.#figures.push({ ...one, time });
    }
    const end = this.#figures.at(-1)?.time ?? 0;
    const first = this.#figures.findIndex(({ time }) => time >= end - WINDOW_SECONDS - 2);
    this.#figures.splice(0, first);
  }

  columns() {
    const times = this.#figures.map(({ time }) => time);
    const values = COLUMNS.map((name) => this.#figures.map((one) => one[name] ?? null));
    return { times, ...Object.fromEntries(COLUMNS.map((name, index) => [name, values[index]])) };
  }
}

const lines = (styles, least, form) => (colour, axis) => ({
  cursor: { y: false, drag: { x: false, y: false }, sync: { key: "live" } },
  scales: {
    x: { range: (_plot, _first, last) => [last - WINDOW_SECONDS, last] },
    y: { range: (_plot, _low, high) => [0, Math.max(least, high * 1.15)] },
  },
  axes: [
    { ...axis, size: 26, gap: 4, space: 40, grid: { show: false }, incrs: [60, 120, 300], values: "{HH}:{mm}" },
    valueAxis({ ...axis, space: 28 }, form),
  ],
  series: [
    {},
    ...styles.map((style) => ({
      stroke: colour(style),
      width: 2,
      points: { show: false },
    })),
  ],
});

const axisAge = (seconds) => (seconds < 10 ? `${Number(seconds.toFixed(2))} s` : age(seconds));

const STAGES = ["accepted", "persisted", "searchable"];
const WAITING = ["accepted", "persisted"];
const rates = lines(STAGES, 5, compact);
const waiting = lines(WAITING, 5, compact);
const ages = lines(WAITING, 1, axisAge);

const said = (pairs) => pairs.map(([name, value]) => `${name} ${value}`).join(", ");

function Stage({ style, name, perSecond, total, title }) {
  return html`<div class="stage ${style}" title=${title}>
    <dt>${name}</dt>
    <dd><b class="big">${rate(perSecond)}</b> a second</dd>
    <dd class="quiet">${count(total)} in all</dd>
  </div>`;
}

function Waiting({ what, orders, seconds }) {
  return html`<div class="waiting ${orders > 0 ? "some" : ""}">
    <dt>${what}</dt>
    <dd><b>${count(orders)}</b> waiting</dd>
    <dd class="quiet">${orders ? `oldest ${age(seconds)}` : orders === 0 ? "none" : "not known"}</dd>
  </div>`;
}

export class Figures extends Panel {
  render({ now, columns, stale }) {
    const known = now ?? {};
    return html`<section aria-labelledby="figures" class=${stale ? "stale" : ""}>
      <h2 id="figures">Orders on their way</h2>
      <dl class="flow">
        <${Stage} style="accepted" name="Accepted" perSecond=${known.accepted_per_second}
          total=${known.accepted} title="Durable in cache or queue: the client has its 202" />
        <${Waiting} what="to be persisted" orders=${known.dirty} seconds=${known.dirty_age_seconds} />
        <${Stage} style="persisted" name="Persisted" perSecond=${known.persisted_per_second}
          total=${known.persisted} title="In PostgreSQL, and counted in the sales" />
        <${Waiting} what="to be searchable" orders=${known.outbox} seconds=${known.outbox_age_seconds} />
        <${Stage} style="searchable" name="Searchable" perSecond=${known.indexed_per_second}
          total=${known.indexed} title="In the search index" />
      </dl>
      <div class="charts">
        <${Chart} title="Orders a second" height=${170} options=${rates}
          series=${[
            { name: "accepted", style: "accepted" },
            { name: "persisted", style: "persisted" },
            { name: "searchable", style: "searchable" },
          ]}
          data=${columns.rates} form=${rate}
          label=${`Orders a second in the last five minutes; now ${said([
            ["accepted", rate(known.accepted_per_second)],
            ["persisted", rate(known.persisted_per_second)],
            ["searchable", rate(known.indexed_per_second)],
          ])}`} />
        <${Chart} title="Orders waiting" height=${170} options=${waiting}
          series=${[
            { name: "not persisted", style: "accepted" },
            { name: "not searchable", style: "persisted" },
          ]}
          data=${columns.waiting} form=${count}
          label=${`Orders waiting in the last five minutes; now ${said([
            ["to be persisted", count(known.dirty)],
            ["to be searchable", count(known.outbox)],
          ])}`} />
        <${Chart} title="Age of the oldest" height=${170} options=${ages}
          series=${[
            { name: "not persisted", style: "accepted" },
            { name: "not searchable", style: "persisted" },
          ]}
          data=${columns.ages} form=${age}
          label=${`Age of the oldest waiting order in the last five minutes; now ${said([
            ["to be persisted", age(known.dirty_age_seconds)],
            ["to be searchable", age(known.outbox_age_seconds)],
          ])}`} />
      </div>
    </section>`;
  }
}

// The same arrays for all who draw them, made once for each event.
export const columnsOf = (history) => {
  const of = history.columns();
  return {
    rates: [of.times, of.accepted_per_second, of.persisted_per_second, of.indexed_per_second],
    waiting: [of.times, of.dirty, of.outbox],
    ages: [of.times, of.dirty_age_seconds, of.outbox_age_seconds],
  };
};
