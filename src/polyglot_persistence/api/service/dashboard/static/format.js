// Numbers, ages and times as a person reads them.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDecimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeZone: "UTC" });
const shortDay = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", timeZone: "UTC" });
const shortMonth = new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" });
const hourOfDay = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", timeZone: "UTC" });
const share = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0, signDisplay: "exceptZero" });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const UNKNOWN = "–";

const known = (form) => (value) => (value === null || value === undefined ? UNKNOWN : form(value));

export const count = known((value) => whole.format(value));
export const compact = known((value) => short.format(value));
export const amount = known((value) => money.format(value));
export const rate = known((value) => (value < 10 ? oneDecimal : whole).format(value));

// Seconds: "0.4 s", "12 s", "3 min", "2.5 h", "4 d".
export const age = known((seconds) => {
  if (seconds < 10) return `${oneDecimal.format(seconds)} s`;
  if (seconds < 120) return `${whole.format(seconds)} s`;
  if (seconds < 7200) return `${whole.format(seconds / 60)} min`;
  if (seconds < 172800) return `${oneDecimal.format(seconds / 3600)} h`;
  return `${whole.format(seconds / 86400)} d`;
});

// Milliseconds: "3.2 ms", "48 ms", and as an age from one second on.
export const delay = known((milliseconds) => {
  if (milliseconds < 10) return `${oneDecimal.format(milliseconds)} ms`;
  if (milliseconds < 1000) return `${whole.format(milliseconds)} ms`;
  return age(milliseconds / 1000);
});

export const timeOfDay = known((text) => clock.format(new Date(text)));
export const dateAndTime = known((text) => moment.format(new Date(text)));
export const utcDay = known((text) => day.format(new Date(text)));
export const monthAndDay = known((text) => shortDay.format(new Date(text)));
export const month = known((text) => shortMonth.format(new Date(text)));
export const hour = known((text) => hourOfDay.format(new Date(text)));
export const percent = known((value) => share.format(value));
export const plural = (number, one, many = `${one}s`) =>
  `${count(number)} ${number === 1 ? one : many}`;
