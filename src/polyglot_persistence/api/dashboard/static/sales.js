// Sales by day, the age of the view that they are read from, and its refresh.
import { ask, post } from "./api.js";
import { Chart, valueAxis } from "./charts.js";
import { age, amount, compact, count, utcDay } from "./format.js";
import { Panel, html } from "./html.js";

const DAYS = 60;

const bars = (colour, axis) => ({
  cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
  scales: {
    x: { time: true, distr: 2 }, // day beside day, also where days without sales lie between
    y: { range: (_plot, _low, high) => [0, Math.max(1, high * 1.1)] },
  },
  axes: [
    { ...axis, size: 26, gap: 4, space: 60, grid: { show: false } },
    valueAxis({ ...axis, space: 32 }),
  ],
  tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "UTC"),
  series: [
    {},
    {
      stroke: colour("sales"),
      fill: colour("sales"),
      width: 0,
      paths: uPlot.paths.bars({ size: [0.75, 40], radius: 0.15 }),
      points: { show: false },
    },
  ],
});

export class Sales extends Panel {
  state = { days: null, data: [[], []], problem: "", refreshing: false, said: "" };

  componentDidMount() {
    this.load();
  }

  componentDidUpdate({ refreshedAt, up }) {
    if (refreshedAt !== this.props.refreshedAt || (this.props.up && !up)) this.load();
  }

  async load() {
    try {
      const days = (await ask(`/api/dashboard/sales?days=${DAYS}`)).reverse();
      const times = days.map(({ date }) => Date.parse(`${date}T00:00:00Z`) / 1000);
      const data = [times, days.map((one) => one.total_revenue)];
      this.setState({ days, data, problem: "" });
    } catch (problem) {
      this.setState({ problem: problem.message });
    }
  }

  refresh = async () => {
    this.setState({ refreshing: true, said: "", problem: "" });
    try {
      await post("/api/admin/refresh");
      this.setState({ said: "The sales are up to date." });
      await this.load();
    } catch (problem) {
      this.setState({ problem: problem.message });
      if (problem.needsKey) this.props.askForKey();
    } finally {
      this.setState({ refreshing: false });
    }
  };

  render({ viewAge }, { days, data, problem, refreshing, said }) {
    const last = days?.at(-1);
    return html`<section class="panel" aria-labelledby="sales">
      <div class="head">
        <h2 id="sales">Sales by day</h2>
        <span class="quiet">as of ${viewAge === null ? "never" : `${age(viewAge)} ago`}</span>
        <button disabled=${refreshing} onClick=${this.refresh}>${refreshing ? "Refreshing…" : "Refresh"}</button>
      </div>
      <p class="hidden" role="status">${said}</p>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      ${days?.length === 0 && html`<p class="quiet">No sales yet. What is persisted is here after the next refresh.</p>`}
      ${days?.length > 0 && html`
        <${Chart} title="Revenue" height=${200} options=${bars} data=${data} form=${amount}
          series=${[{ name: "a day (UTC)", style: "sales" }]}
          label=${`Revenue of the latest ${count(days.length)} days with sales; on ${utcDay(last.date)} ${amount(last.total_revenue)}`} />
        <details>
          <summary>As a table</summary>
          <div class="scroll" tabindex="0" role="region" aria-label="Sales by day">
            <table>
              <thead><tr><th scope="col">Day (UTC)</th><th scope="col">Orders</th><th scope="col">Revenue</th></tr></thead>
              <tbody>${[...days].reverse().map((one) => html`<tr key=${one.date}>
                <th scope="row">${utcDay(one.date)}</th><td>${count(one.orders)}</td><td>${amount(one.total_revenue)}</td>
              </tr>`)}</tbody>
            </table>
          </div>
        </details>`}
    </section>`;
  }
}
