package cloud

import (
	"context"
	"encoding/json"
	"net/http"
)

// hoursOfMonth is what a monthly figure is reckoned with: a twelfth of a year.
const hoursOfMonth = 730

// StoragePrices are the prices of one GiB for an hour, in credits, by zone and by the API's item, such as storage_maxiops.
type StoragePrices map[string]map[string]float64

// StoragePrices reads the account's price list: one call.
func (c *Cloud) StoragePrices(ctx context.Context) (StoragePrices, error) {
	var answer struct {
		Prices struct {
			Zone []map[string]json.RawMessage `json:"zone"`
		} `json:"prices"`
	}
	if err := c.call(ctx, http.MethodGet, "/price", nil, &answer); err != nil {
		return nil, explain(err, Error{Op: "read", Resource: "prices"})
	}
	prices := StoragePrices{}
	for _, zone := range answer.Prices.Zone {
		var name string
		if json.Unmarshal(zone["name"], &name) != nil {
			continue
		}
		prices[name] = map[string]float64{}
		for item, raw := range zone {
			var price struct{ Amount, Price float64 }
			if json.Unmarshal(raw, &price) == nil && price.Amount > 0 {
				prices[name][item] = price.Price / price.Amount
			}
		}
	}
	return prices, nil
}

// CreditsPerMonth is what a disk or a backup costs in 730 hours; false where the price list does not say.
func (p StoragePrices) CreditsPerMonth(s *Storage) (float64, bool) {
	item := "storage_" + s.Tier
	if s.Backup {
		item = "storage_backup"
	}
	price, known := p[s.Zone][item]
	return price * float64(s.SizeGiB) * hoursOfMonth, known
}
