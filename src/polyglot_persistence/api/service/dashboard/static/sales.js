// Sales by hour, day and month with the top products; and the age and refresh of the daily view.
import { address, ask, post, query } from "./api.js";
import { Chart, valueAxis } from "./charts.js";
import { age, amount, count, hour, month, monthAndDay, percent, plural, timeOfDay, utcDay } from "./format.js";
import { Panel, Trouble, html } from "./html.js";

const DAY_MS = 86_400_000;
const RELOAD_MS = 10_000;
const PRODUCTS = 8;

// How many days a chart spans, as the API does by itself; how a period is called in full and in short.
const GRAINS = {
  hour: { label: "Hour", days: 1, full: (start) => `${utcDay(start)}, ${hour(start)}`, short: hour },
  day: { label: "Day", days: 30, full: utcDay, short: monthAndDay },
  month: { label: "Month", days: 365, full: month, short: month },
};

const dateOf = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 10);
const tomorrow = () => dateOf(Date.now() + DAY_MS);
const shifted = (date, days) => dateOf(Date.parse(date) + days * DAY_MS);

const bars = (nameOf) => (colour, axis) => ({
  cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
  scales: {
    x: { time: false, range: (plot) => [-0.5, Math.max(1, plot.data[0].length) - 0.5] },
    y: { range: (_plot, _low, high) => [0, Math.max(1, high * 1.1)] },
  },
  axes: [
    {
      ...axis,
      size: 26,
      gap: 4,
      space: 70,
      grid: { show: false },
      incrs: [1, 2, 5, 10, 20, 50, 100],
      values: (_plot, places) => places.map((place) => nameOf(place)),
    },
    valueAxis({ ...axis, space: 32 }),
  ],
  series: [
    {},
    {
      stroke: colour("sales"),
      fill: colour("sales"),
      width: 0,
      paths: uPlot.paths.bars({ size: [0.75, 40], radius: 0.12 }),
      points: { show: false },
    },
  ],
});

function Table({ rows, grain }) {
  return html`<details>
    <summary>As a table</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="Sales as a table">
      <table>
        <thead><tr>
          ${[grain.label, "Orders", "Revenue", "Average", "Change"].map((name) => html`<th scope="col" key=${name}>${name}</th>`)}
        </tr></thead>
        <tbody>${[...rows].reverse().map((row) => html`<tr key=${row.start}>
          <th scope="row">${grain.full(row.start)}</th>
          <td>${count(row.orders)}</td><td>${amount(row.revenue)}</td>
          <td>${amount(row.average)}</td><td>${percent(row.growth)}</td>
        </tr>`)}</tbody>
      </table>
    </div>
  </details>`;
}

function Products({ products, chosen, choose }) {
  const most = products[0]?.revenue || 1;
  return html`<div class="products">
    <h3>Top products</h3>
    ${products.length === 0 && html`<p class="quiet">None in this time.</p>`}
    <ol>${products.map(({ product_name: name, revenue, orders }) => html`<li key=${name}>
      <button class="product" aria-pressed=${name === chosen} onClick=${() => choose(name === chosen ? "" : name)}>
        <span>${name}</span><b>${amount(revenue)}</b>
        <span class="bar" aria-hidden="true"><span style=${{ width: `${(100 * revenue) / most}%` }}></span></span>
        <span class="quiet">${plural(orders, "order")}</span>
      </button>
    </li>`)}</ol>
  </div>`;
}

export class Sales extends Panel {
  state = {
    by: GRAINS[address.get("by")] ? address.get("by") : "day",
    to: address.get("to"),
    product: address.get("product"),
    sales: null,
    data: [[], []],
    products: [],
    problem: null,
    refreshing: false,
    said: "",
  };
  #loadedAt = 0;
  nameOf = (place) => {
    const row = this.state.sales?.rows[place];
    return row ? GRAINS[this.state.sales.by].short(row.start) : "";
  };
  bars = bars(this.nameOf);

  componentDidMount() {
    this.begin();
  }

  componentDidUpdate({ persisted, up, keyed }) {
    const due = performance.now() - this.#loadedAt > RELOAD_MS;
    const current = !this.state.to && this.props.persisted !== persisted;
    if ((this.props.up && !up) || keyed !== this.props.keyed || (current && due)) this.load();
  }

  // Opens where there are sales, if the latest are too long ago to be in the chart.
  async begin() {
    if (!this.state.to) {
      const [latest] = await ask("api/dashboard/sales?days=1").catch(() => []);
      const { days } = GRAINS[this.state.by];
      const past = latest && Date.parse(latest.date) < Date.now() - days * DAY_MS;
      if (past) this.setState({ to: shifted(latest.date, 1) });
    }
    this.load();
  }

  show(changes) {
    this.setState({ said: "", ...changes }, () => {
      const { by, to, product } = this.state;
      address.set({ by: by === "day" ? "" : by, to, product });
      this.load();
    });
  }

  shift(direction) {
    const { days } = GRAINS[this.state.by];
    const to = shifted(this.state.to || tomorrow(), direction * days);
    this.show({ to: to >= tomorrow() ? "" : to });
  }

  async load() {
    this.#loadedAt = performance.now();
    this.running?.abort();
    const { signal } = (this.running = new AbortController());
    const { by, to, product } = this.state;
    const span = to ? { from: shifted(to, -GRAINS[by].days), to } : {};
    try {
      const named = by === "hour" ? {} : { product };
      const sales = await ask(`api/sales${query({ by, ...span, ...named })}`, { signal });
      const days = { from: sales.rows[0].start.slice(0, 10), to };
      const top = await ask(`api/sales/products${query({ ...days, limit: PRODUCTS })}`, { signal });
      const data = [sales.rows.map((_row, place) => place), sales.rows.map(({ revenue }) => revenue)];
      this.setState({ sales, data, products: top.products, problem: null });
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.setState({ problem });
    }
  }

  refresh = async () => {
    this.setState({ refreshing: true, said: "", problem: null });
    try {
      await post("api/admin/refresh");
      this.setState({ said: "The daily view is up to date." });
    } catch (problem) {
      this.setState({ problem });
    } finally {
      this.setState({ refreshing: false });
    }
  };

  view(viewAge, up) {
    if (viewAge !== null) return `daily view of ${age(viewAge)} ago`;
    return up ? "daily view never refreshed" : "the record is away";
  }

  controls({ by, to, product }) {
    return html`<div class="controls">
      <fieldset>
        <legend class="hidden">Sum up by</legend>
        ${Object.entries(GRAINS).map(([name, { label }]) => html`<label key=${name} class="choice">
          <input type="radio" name="by" value=${name} checked=${by === name} onChange=${() => this.show({ by: name })} />${label}
        </label>`)}
      </fieldset>
      <div class="span">
        <button aria-label="Earlier" onClick=${() => this.shift(-1)}>‹</button>
        <label class="inline">until
          <input type="date" value=${to ? shifted(to, -1) : ""} max=${dateOf(Date.now())}
            onChange=${({ target }) => this.show({ to: target.value && shifted(target.value, 1) })} />
        </label>
        <button aria-label="Later" disabled=${!to} onClick=${() => this.shift(1)}>›</button>
      </div>
      ${product && by !== "hour" && html`<button onClick=${() => this.show({ product: "" })}>${product} <span aria-hidden="true">×</span><span class="hidden">: show all products</span></button>`}
    </div>`;
  }

  chart({ sales, data }) {
    const grain = GRAINS[sales.by];
    const { revenue, orders, average } = sales.total;
    const at = (place) => (sales.rows[place] ? grain.full(sales.rows[place].start) : "");
    const span = `${grain.full(sales.rows[0].start)} to ${grain.full(sales.rows.at(-1).start)}`;
    return html`<div>
      <p class="totals"><b>${amount(revenue)}</b> revenue, <b>${count(orders)}</b> orders, <b>${amount(average)}</b> on average</p>
      <${Chart} title="" height=${220} options=${this.bars} data=${data} form=${amount}
        series=${[{ name: at, style: "sales" }]}
        label=${`Revenue by ${sales.by}, UTC, ${span}; ${amount(revenue)} in all`} />
      <${Table} rows=${sales.rows} grain=${grain} />
    </div>`;
  }

  render({ viewAge, up, askForKey }, state) {
    const { sales, products, problem, refreshing, said, product, by } = state;
    return html`<section class="panel" aria-labelledby="sales">
      <div class="head">
        <h2 id="sales">Sales <span class="quiet">UTC${sales && `, exact as of ${timeOfDay(sales.as_of)}`}</span></h2>
        <span class="quiet view">${this.view(viewAge, up)}</span>
        <button disabled=${refreshing} onClick=${this.refresh}>${refreshing ? "Refreshing…" : "Refresh view"}</button>
      </div>
      <p class="hidden" role="status">${said}</p>
      ${this.controls(state)}
      <${Trouble} problem=${problem} askForKey=${askForKey} />
      ${sales && html`<div class="sales">
        ${this.chart(state)}
        <${Products} products=${products} chosen=${by === "hour" ? "" : product}
          choose=${(name) => this.show({ product: name, ...(by === "hour" && { by: "day" }) })} />
      </div>`}
    </section>`;
  }
}
