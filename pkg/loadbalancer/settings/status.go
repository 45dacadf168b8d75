package settings

import (
	"fmt"
)

// StatusMode says what a Service's status holds of its load balancer.
type StatusMode string

const (
	// StatusHostname publishes the DNS name, as UpCloud's own CCM does. It follows the load balancer through maintenance,
	// a change of plan, and the failure of one of its servers, all of which change addresses.
	StatusHostname StatusMode = "hostname"
	// StatusIP publishes the addresses that the load balancer listens on, for where its DNS name cannot be resolved. They
	// are read when the Service is reconciled and at each check (Config.CheckInterval), and so can be out of date for some minutes
	// after a maintenance; floating IP addresses, which
	// stay, are published alone.
	StatusIP StatusMode = "ip"
	// StatusBoth publishes addresses, each with the DNS name beside it. ExternalDNS, for one, then takes the addresses.
	StatusBoth StatusMode = "both"
)

// ParseStatusMode reads a StatusMode; an empty one is StatusHostname.
func ParseStatusMode(text string) (StatusMode, error) {
	switch mode := StatusMode(text); mode {
	case "":
		return StatusHostname, nil
	case StatusHostname, StatusIP, StatusBoth:
		return mode, nil
	}
	return "", fmt.Errorf("%q is none of %s, %s, %s", text, StatusHostname, StatusIP, StatusBoth)
}
