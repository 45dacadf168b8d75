package simulator

import (
	_ "embed"
	"strings"
)

type price struct {
	Amount float64 `json:"amount"` // units that the price is for
	Price  float64 `json:"price"`  // credits an hour, or for the units
}

// basePrices are those that do not depend on plans, as recorded for Helsinki.
var basePrices = map[string]price{
	"firewall":                      {1, 0.56},
	"io_request_backup":             {1000000, 0},
	"io_request_hdd":                {1000000, 0},
	"io_request_maxiops":            {1000000, 0},
	"ipv4_address":                  {1, 0.336},
	"ipv6_address":                  {1, 0},
	"network_private_vlan":          {1, 0.694},
	"public_ipv4_bandwidth_in":      {1, 0},
	"public_ipv4_bandwidth_out":     {1, 1},
	"public_ipv6_bandwidth_in":      {1, 0},
	"public_ipv6_bandwidth_out":     {1, 1},
	"server_core":                   {1, 1.24},
	"server_memory":                 {256, 0.34},
	"simple_backup_extra_dailies":   {1, 0.0104},
	"simple_backup_extra_monthlies": {1, 0.0312},
	"simple_backup_extra_weeklies":  {1, 0.0208},
	"storage_backup":                {1, 0.0078},
	"storage_hdd":                   {1, 0.0145},
	"storage_maxiops":               {1, 0.031},
	"storage_template":              {1, 0.031},
}

// planPrices are those of the plans in the recording. Simple backups of a plan's disk cost a share of it.
var planPrices = map[string]float64{
	"1xCPU-1GB": 1.116, "1xCPU-2GB": 2.2321, "2xCPU-4GB": 4.4642, "4xCPU-8GB": 8.9285, "6xCPU-16GB": 17.8571,
	"8xCPU-32GB": 35.7142, "12xCPU-48GB": 53.5714, "16xCPU-64GB": 71.4285, "20xCPU-96GB": 107.1428, "20xCPU-128GB": 142.8571,
}

func pricesOf(zone string) map[string]any {
	out := map[string]any{"name": zone}
	for item, p := range basePrices {
		out[item] = p
	}
	for plan, amount := range planPrices {
		out["server_plan_"+plan] = price{1, amount}
		out["simple_backup_dailies_"+plan] = price{1, rounded(amount * 0.2)}
		out["simple_backup_weeklies_"+plan] = price{1, rounded(amount * 0.4)}
		out["simple_backup_monthlies_"+plan] = price{1, rounded(amount * 0.6)}
	}
	return out
}

func rounded(amount float64) float64 { return float64(int(amount*10000+0.5)) / 10000 }

type priceList struct {
	Prices struct {
		Zone []map[string]any `json:"zone"`
	} `json:"prices"`
}

func (s *Simulator) listPrices(*call) (any, error) {
	var out priceList
	for _, z := range s.zones {
		out.Prices.Zone = append(out.Prices.Zone, pricesOf(z.ID))
	}
	return out, nil
}

//go:embed timezones.txt
var timezones string

type timezoneList struct {
	Timezones struct {
		Timezone []string `json:"timezone"`
	} `json:"timezones"`
}

func (s *Simulator) listTimezones(*call) (any, error) {
	var out timezoneList
	out.Timezones.Timezone = strings.Fields(timezones)
	return out, nil
}

// Sizes of servers without a plan: every number of cores with every whole number of GiB.
const (
	maxCores     = 20
	maxMemoryGiB = 128
)

type serverSize struct {
	CoreNumber   string `json:"core_number"`
	MemoryAmount string `json:"memory_amount"` // MiB
}

type serverSizeList struct {
	ServerSizes struct {
		ServerSize []serverSize `json:"server_size"`
	} `json:"server_sizes"`
}

func (s *Simulator) listServerSizes(*call) (any, error) {
	var out serverSizeList
	for cores := range maxCores {
		for memory := range maxMemoryGiB {
			out.ServerSizes.ServerSize = append(out.ServerSizes.ServerSize, serverSize{itoa(cores + 1), itoa((memory + 1) * 1024)})
		}
	}
	return out, nil
}
