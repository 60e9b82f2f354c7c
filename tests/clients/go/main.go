// Places orders and reads them back through a generated client.
// Arguments: the API's address, a key, amounts. Prints JSON.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"

	"example.com/polyglot/orders"
)

func main() {
	configuration := orders.NewConfiguration()
	configuration.Servers = orders.ServerConfigurations{{URL: os.Args[1]}}
	configuration.AddDefaultHeader("X-API-Key", os.Args[2])
	api := orders.NewAPIClient(configuration)
	ctx := context.Background()
	read := []string{}
	for _, text := range os.Args[3:] {
		amount, err := strconv.ParseFloat(text, 64)
		check(err)
		order := *orders.NewOrderIn("Go", orders.OrderInAmount{Float64: &amount})
		accepted, _, err := api.OrdersAPI.CreateOrder(ctx).OrderIn(order).Execute()
		check(err)
		stored, _, err := api.OrdersAPI.ReadOrder(ctx, accepted.GetOrderId()).Execute()
		check(err)
		read = append(read, strconv.FormatFloat(stored.GetAmount(), 'f', -1, 64))
	}
	letters, _, err := api.AdminAPI.ListDeadLetters(ctx).Limit(5).Execute()
	check(err)
	_, _, err = api.SalesAPI.DailySales(ctx).Days(1).Live("true").Execute()
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{"read": read, "total": letters.Total}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
