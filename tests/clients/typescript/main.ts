// Places orders and reads them back through a client whose types are generated.
// Arguments: the API's address, a key, amounts. Prints JSON.
import createClient from "openapi-fetch";
import type { paths } from "./orders.js";

declare const process: { argv: string[] };

const [baseUrl, key, ...amounts] = process.argv.slice(2);
const api = createClient<paths>({ baseUrl, headers: { "X-API-Key": key } });

function needed<T>(value: T | undefined, error: unknown): T {
  if (value === undefined) throw new Error(JSON.stringify(error));
  return value;
}

const read: string[] = [];
for (const amount of amounts) {
  const placed = await api.POST("/api/orders", {
    body: { product_name: "TypeScript", amount: Number(amount) },
  });
  const { order_id } = needed(placed.data, placed.error);
  const order = await api.GET("/api/orders/{id}", { params: { path: { id: order_id } } });
  const stored: number = needed(order.data, order.error).amount;
  read.push(String(stored));
}
const letters = await api.GET("/api/admin/dead-letters", { params: { query: { limit: 5 } } });
const total: number | null = needed(letters.data, letters.error).total ?? null;
const sales = await api.GET("/api/dashboard/sales", {
  params: { query: { days: 1, live: "true" } },
});
needed(sales.data, sales.error).map((day): number => day.total_revenue);
console.log(JSON.stringify({ read, total }));
