// Charts of uPlot inside Preact: colours come from the style sheet, so that they follow the scheme.
import { compact } from "./format.js";
import { Panel, createRef, html } from "./html.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const FONT = "12px system-ui, sans-serif";

// A chart's box: properties `label`, `height`, `series` ([{ name, style, text }]), `data` (columns
// as uPlot wants them) and `options(colours, axes)`, which returns what is particular to it.
export class Chart extends Panel {
  box = createRef();
  state = { at: null };

  componentDidMount() {
    this.draw = () => {
      this.plot?.destroy();
      this.plot = new uPlot(this.options(), this.props.data, this.box.current);
    };
    this.observer = new ResizeObserver(() => {
      const width = this.box.current.clientWidth;
      if (width && width !== this.plot.width) this.plot.setSize({ width, height: this.props.height });
    });
    this.draw();
    this.observer.observe(this.box.current);
    dark.addEventListener("change", this.draw);
  }

  componentWillUnmount() {
    dark.removeEventListener("change", this.draw);
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.plot.destroy();
  }

  componentDidUpdate(before) {
    if (before.data === this.props.data) return;
    // In a hidden tab no frame comes, and nothing is drawn.
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.plot.setData(this.props.data));
  }

  options() {
    const box = this.box.current;
    const colour = (style) => {
      const probe = box.parentNode.querySelector(`.swatch.${style}`);
      return getComputedStyle(probe).color;
    };
    const styles = getComputedStyle(box);
    const axis = {
      stroke: styles.color,
      font: FONT,
      grid: { stroke: styles.borderTopColor, width: 1 },
      ticks: { show: false },
    };
    return {
      width: box.clientWidth || 300,
      height: this.props.height,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      ...this.props.options(colour, axis),
      hooks: { setCursor: [(plot) => this.setState({ at: plot.cursor.idx ?? null })] },
    };
  }

  // What is under the pointer, else the latest.
  place() {
    const last = this.props.data[0].length - 1;
    return last < 0 ? null : Math.min(this.state.at ?? last, last);
  }

  value(column) {
    return this.props.data[column]?.[this.place()] ?? null;
  }

  render({ label, series, title, form = compact, height }) {
    return html`<figure class="chart">
      <figcaption>
        ${title && html`<span class="chart-title">${title}</span>`}
        ${series.map(
          ({ name, style }, index) => html`<span class="legend">
            <span class="swatch ${style}" aria-hidden="true"></span>
            ${typeof name === "function" ? name(this.place()) : name}${" "}
            <b>${form(this.value(index + 1))}</b>
          </span>`,
        )}
      </figcaption>
      <div class="plot" role="img" aria-label=${label} style=${{ height: `${height}px` }} ref=${this.box}></div>
    </figure>`;
  }
}

export const valueAxis = (axis, form = compact) => ({
  ...axis,
  size: 46,
  gap: 6,
  values: (_plot, values) => values.map(form),
});
