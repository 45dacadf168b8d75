package main

import (
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
)

// FuzzConfigFile reads a configuration file, of which a part is repeated: it is read or refused, at a cost in proportion to its size,
// and no error or warning repeats what may be a password.
func FuzzConfigFile(f *testing.F) {
	f.Add(upstreamConfig, "", uint16(0))
	for _, part := range []string{"- {loadBalancer: edge, ports: [80], hosts: [a.example]}\n", "- &a [*a]\n", "- [[[[\n", "x: y\n"} {
		f.Add("data:\n  sharedLoadBalancers:\n", "  "+part, uint16(1))
		f.Add("data:\n  nodePrivateNetworks:\n", "  "+part, uint16(500))
	}
	cost := boundedtest.Cost{Bytes: 4 << 20, BytesPerByte: 4000, CPU: 5 * time.Second, CPUPerByte: 200 * time.Microsecond}
	f.Fuzz(func(t *testing.T, before, part string, times uint16) {
		if len(part)*int(times) > 256<<10 {
			return
		}
		text := before + strings.Repeat(part, int(times))
		cost.Within(t, len(text), func() {
			if file, _, err := parseConfigFile([]byte(text)); err == nil {
				instancesConfig(file)
			}
			_, _, _, _ = credentialsIn([]byte(text))
		})
	})
}
