package local

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// startPower begins to do what the hypervisor does: a machine whose server is stopped or deleted in the account loses its
// power at once, and one whose server is started again boots.
func (c *Cluster) startPower(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	c.powerEnd = cancel
	c.power.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.followServers(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

func (c *Cluster) followServers(ctx context.Context) {
	servers, err := c.account.GetServers(ctx)
	if err != nil {
		return // the next look will tell
	}
	states := map[string]string{} // a deleted server has none
	for _, server := range servers.Servers {
		states[server.UUID] = server.State
	}
	for _, n := range c.nodes {
		off := slices.Contains([]string{"", upcloud.ServerStateStopped}, states[n.server])
		switch {
		case off:
			c.powerOff(n)
		case states[n.server] == upcloud.ServerStateStarted && n.machine == nil:
			if err := c.powerOn(n); err != nil {
				fmt.Fprintln(os.Stderr, "boot", n.name+":", err)
				c.powerOff(n)
			}
		}
	}
}

// powerOff ends every process of the node at once, as a machine does that loses its power.
func (c *Cluster) powerOff(n *node) {
	if n.machine == nil {
		return
	}
	c.mu.Lock()
	c.expected[n.machine] = true
	c.processes = slices.DeleteFunc(c.processes, func(p *machine.Process) bool { return p == n.machine })
	c.mu.Unlock()
	n.machine.Kill()
	n.machine = nil
}
