// Placing an order, and following orders through their stages.
import { address, ask, newKey, post, query } from "./api.js";
import { amount, delay, timeOfDay } from "./format.js";
import { Panel, Trouble, createRef, html } from "./html.js";

const FOLLOWED_MAX = 5;
const POLLS_MS = [30, 60, 120, 250, 500]; // then every second
const POLL_MS = 1_000;
const PATIENCE_MS = 600_000;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const between = (from, to) => (from && to ? Math.max(0, Date.parse(to) - Date.parse(from)) : null);

// The stages of an order: name, style, when, how long after the one before.
function stagesOf({ status, answeredMs }) {
  const { accepted_at, persisted_at, searchable_at, dead_lettered_at } = status ?? {};
  const accepted = { name: "Accepted", style: "accepted", at: accepted_at, done: true };
  accepted.note = answeredMs === undefined ? "" : `in ${delay(answeredMs)}`;
  if (status?.status === "dead-lettered") {
    return [accepted, { name: "Dead letter", style: "dead", at: dead_lettered_at, done: true, note: status.reason }];
  }
  const reached = (name) => status?.status === name || (name === "persisted" && status?.status === "searchable");
  const after = (milliseconds) => (milliseconds === null ? "" : `after ${delay(milliseconds)}`);
  return [
    accepted,
    { name: "Persisted", style: "persisted", at: persisted_at, done: reached("persisted"), note: after(between(accepted_at, persisted_at)) },
    { name: "Searchable", style: "searchable", at: searchable_at, done: reached("searchable"), note: after(between(persisted_at, searchable_at)) },
  ];
}

const isOver = (status) => status?.status === "searchable" || status?.status === "dead-lettered";

function Order({ order, forget }) {
  const stages = stagesOf(order);
  return html`<li class="order">
    <p class="order-head">
      <b>${order.product_name ?? "An order"}</b>
      ${order.amount !== undefined && html`<span class="amount">${amount(order.amount)}</span>`}
      <button class="bare" aria-label=${`Stop following ${order.product_name ?? order.id}`} onClick=${forget}>×</button>
    </p>
    <p class="id">${order.id}</p>
    <ol class="stages">
      ${stages.map(({ name, style, at, done, note }) => html`<li key=${name} class="${style} ${done ? "done" : "open"}">
        <span class="stage-name">${name}</span>
        <span class="quiet">${done ? note : "waiting"}</span>
        ${done && at && html`<time class="quiet" datetime=${at} title=${at}>${timeOfDay(at)}</time>`}
      </li>`)}
    </ol>
    ${order.problem && html`<p class="problem">${order.problem}</p>`}
  </li>`;
}

export class Orders extends Panel {
  name = createRef();
  price = createRef();
  known = createRef();
  state = { orders: [], suggestions: [], broken: {}, problem: null, placing: false, said: "" };
  #key = { body: "", text: "" };
  #polled = new Set();

  componentDidMount() {
    const id = address.get("order");
    if (ID.test(id)) this.follow({ id });
  }

  componentDidUpdate({ wanted }) {
    if (this.props.wanted && this.props.wanted !== wanted) this.follow(this.props.wanted);
  }

  // The same content that got no answer is sent again under the same key: one order, however often.
  keyOf(body) {
    const text = JSON.stringify(body);
    if (this.#key.body !== text) this.#key = { body: text, text: newKey() };
    return this.#key.text;
  }

  suggest = ({ target }) => {
    clearTimeout(this.pause);
    this.pause = setTimeout(async () => {
      const q = target.value.trim();
      const none = { suggestions: [] };
      // Help that may fail: without it the name is typed in full.
      const { suggestions } = q ? await ask(`api/search/suggest${query({ q, limit: 6 })}`).catch(() => none) : none;
      this.setState({ suggestions: suggestions.map((one) => one.product_name) });
    }, 150);
  };

  place = async (event) => {
    event.preventDefault();
    const body = { product_name: this.name.current.value, amount: this.price.current.value.trim() };
    this.setState({ placing: true, problem: null, broken: {} });
    const sentAt = performance.now();
    try {
      const { order_id: id } = await post("api/orders", body, { "Idempotency-Key": this.keyOf(body) });
      this.#key = { body: "", text: "" };
      this.follow({ id, product_name: body.product_name.trim(), amount: body.amount, answeredMs: performance.now() - sentAt });
    } catch (problem) {
      const broken = {};
      for (const { pointer, detail } of problem.errors ?? []) broken[pointer.slice(1)] ??= detail;
      this.setState({ broken, problem: Object.keys(broken).length ? null : problem });
      if (broken.product_name) this.name.current.focus();
      else if (broken.amount) this.price.current.focus();
    } finally {
      this.setState({ placing: false });
    }
  };

  find = (event) => {
    event.preventDefault();
    const id = this.known.current.value.trim().toLowerCase();
    if (!ID.test(id)) {
      this.setState({ broken: { id: "is no order's id: 36 characters, like 01890a5d-ac96-774b-bcce-b302099a8057" } });
      this.known.current.focus();
      return;
    }
    this.setState({ broken: {} });
    this.known.current.value = "";
    this.follow({ id });
  };

  follow(order) {
    address.set({ order: order.id });
    const others = this.state.orders.filter(({ id }) => id !== order.id);
    this.setState({ orders: [order, ...others].slice(0, FOLLOWED_MAX) }, () => {
      if (!this.#polled.has(order.id)) this.poll(order.id, 0, performance.now());
      if (order.product_name === undefined) this.complete(order.id);
    });
  }

  forget(id) {
    this.setState({ orders: this.state.orders.filter((order) => order.id !== id) });
    address.set({ order: "" });
  }

  change(id, changes) {
    this.setState(({ orders }) => ({
      orders: orders.map((order) => (order.id === id ? { ...order, ...changes } : order)),
    }));
  }

  async complete(id) {
    try {
      const { product_name, amount: price } = await ask(`api/orders/${id}`);
      this.change(id, { product_name, amount: price });
    } catch (problem) {
      this.change(id, { problem: problem.message });
    }
  }

  async poll(id, polls, since) {
    this.#polled.delete(id);
    const order = this.state.orders.find((one) => one.id === id);
    if (!order || performance.now() - since > PATIENCE_MS) return;
    this.#polled.add(id);
    try {
      const status = await ask(`api/orders/${id}/status`);
      this.change(id, { status, problem: "" });
      if (isOver(status)) {
        const name = this.state.orders.find((one) => one.id === id)?.product_name ?? "The order";
        this.setState({ said: `${name}: ${status.status}` });
        this.#polled.delete(id);
        return;
      }
    } catch (problem) {
      this.change(id, { problem: problem.message });
      if (problem.status === 404 || problem.needsKey) {
        this.#polled.delete(id);
        return;
      }
    }
    setTimeout(() => this.poll(id, polls + 1, since), POLLS_MS[polls] ?? POLL_MS);
  }

  field(name, label, input) {
    const wrong = this.state.broken[name];
    return html`<div class="field">
      <label for=${`order-${name}`}>${label}</label>
      ${input}
      ${wrong && html`<p class="problem" id=${`order-${name}-wrong`}>${label} ${wrong}</p>`}
    </div>`;
  }

  described(name) {
    return this.state.broken[name] ? `order-${name}-wrong` : undefined;
  }

  render({ askForKey }, { orders, suggestions, broken, problem, placing, said }) {
    return html`<section class="panel" aria-labelledby="place">
      <h2 id="place">Place an order</h2>
      <form class="row" onSubmit=${this.place} novalidate>
        ${this.field("product_name", "Product", html`<input id="order-product_name" ref=${this.name} autocomplete="off" list="order-names" onInput=${this.suggest}
          aria-invalid=${broken.product_name ? "true" : undefined} aria-describedby=${this.described("product_name")} />`)}
        ${this.field("amount", "Amount", html`<input id="order-amount" class="short" ref=${this.price} inputmode="decimal" autocomplete="off"
          aria-invalid=${broken.amount ? "true" : undefined} aria-describedby=${this.described("amount")} />`)}
        <datalist id="order-names">${suggestions.map((name) => html`<option key=${name} value=${name} />`)}</datalist>
        <button class="primary" disabled=${placing}>Place order</button>
      </form>
      <${Trouble} problem=${problem} askForKey=${askForKey} />
      <ul class="orders" aria-label="Orders that you follow">
        ${orders.map((order) => html`<${Order} key=${order.id} order=${order} forget=${() => this.forget(order.id)} />`)}
      </ul>
      ${orders.length === 0 && html`<p class="quiet">Watch it pass accepted, persisted and searchable, with the time of each.</p>`}
      <form class="row" onSubmit=${this.find} novalidate>
        ${this.field("id", "Follow an order by its id", html`<input id="order-id" ref=${this.known} autocomplete="off" spellcheck=${false}
          aria-invalid=${broken.id ? "true" : undefined} aria-describedby=${this.described("id")} />`)}
        <button>Follow</button>
      </form>
      <p class="hidden" role="status">${said}</p>
    </section>`;
  }
}
