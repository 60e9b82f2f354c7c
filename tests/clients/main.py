"""Places orders and reads them back through a generated client.

Arguments: the API's address, a key, amounts. Prints JSON.
"""

import json
import sys
from uuid import UUID

import orders  # type: ignore[import-not-found]  # it is generated


def main(address: str, key: str, *amounts: str) -> None:
    """Place an order over each amount."""
    configuration = orders.Configuration(host=address, api_key={"apiKey": key})
    with orders.ApiClient(configuration) as client:
        api = orders.OrdersApi(client)
        read = []
        for text in amounts:
            order = orders.OrderIn(product_name="Python", amount=orders.OrderInAmount(float(text)))
            placed = api.create_order(order)
            stored = api.read_order(UUID(str(placed.order_id)))
            read.append(repr(stored.amount))
        letters = orders.AdminApi(client).list_dead_letters(limit=5)
        orders.SalesApi(client).daily_sales(days=1, live="true")
    sys.stdout.write(json.dumps({"read": read, "total": letters.total}))


main(*sys.argv[1:])
