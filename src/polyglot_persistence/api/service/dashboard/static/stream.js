// Server-sent events over fetch: EventSource can neither send a key nor read why it was refused.
import { authorization, problemOf } from "./api.js";

const RETRY_MAX_MS = 15_000;
const SILENCE_MAX_MS = 40_000; // the server says something every 15 s

// Yields { event, data, id, retry } for each block of the stream, whatever its line ends.
async function* eventsOf(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    text += value;
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const event = { event: "message", data: "" };
      for (const line of block.split(/\r?\n/)) {
        const [, field, content] = /^([a-z]*):? ?(.*)$/.exec(line) ?? [];
        if (field === "data") event.data += content;
        else if (field) event[field] = content;
      }
      yield event;
    }
  }
}

// Listens until told to stop, and connects again for ever. `onEvent(name, data)` gets each event;
// `onState(open, problem)` is told of every connection and of its loss.
export function listen(path, { onEvent, onState }) {
  let lastId = "";
  let retry = 2_000;
  let failures = 0;
  let stopped = false;
  let connection = new AbortController();
  let wake = () => {};

  async function connectOnce() {
    connection = new AbortController();
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENCE_MAX_MS);
    };
    heard();
    try {
      const headers = { ...authorization(), ...(lastId && { "Last-Event-ID": lastId }) };
      const options = { headers, cache: "no-store", signal: connection.signal };
      const response = await fetch(path, options);
      if (!response.ok) throw await problemOf(response);
      failures = 0;
      onState(true, null);
      for await (const event of eventsOf(response.body, heard)) {
        if (event.retry) retry = Number(event.retry);
        if (event.data) onEvent(event.event, JSON.parse(event.data));
        if (event.id) lastId = event.id;
      }
      return null;
    } finally {
      clearTimeout(silence);
    }
  }

  async function run() {
    while (!stopped) {
      const problem = await connectOnce().catch((error) => error);
      if (stopped) return;
      onState(false, problem);
      const longest = Math.min(retry * 2 ** failures, RETRY_MAX_MS);
      failures += 1;
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, longest * (0.5 + Math.random() / 2));
      });
    }
  }

  const again = () => wake();
  addEventListener("online", again);
  run();
  return {
    again() {
      connection.abort();
      wake();
    },
    stop() {
      stopped = true;
      removeEventListener("online", again);
      connection.abort();
      wake();
    },
  };
}
