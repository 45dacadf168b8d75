package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// startPower begins to do what the hypervisor does: a machine whose server is stopped or deleted in the account loses its
// power at once, and one whose server is started again boots.
func (c *Cluster) startPower(context.Context) error {
	if err := c.tellStatus(); err != nil { // which changes with the power from now on
		return err
	}
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
		before := n.machine
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
		if n.machine == before {
			continue
		}
		if err := c.tellStatus(); err != nil {
			fmt.Fprintln(os.Stderr, "tell the power of "+n.name+":", err)
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
	// What a machine's kernel has in memory ends with its power, and this machine's kernel goes on. A kubelet that finds
	// cgroups asks for each what runs there, ten seconds long.
	err := errors.Join(machine.RemoveCgroups(cgroupPrefix+n.name), detachOnTop(filepath.Join(disksDir, "servers", n.server, "by-id")))
	if err != nil {
		fmt.Fprintln(os.Stderr, "power off "+n.name+":", err)
	}
}

// detachOnTop frees the loop devices that a kubelet put on top of its server's disks, whose links are in the folder.
func detachOnTop(links string) error {
	entries, err := os.ReadDir(links)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a deleted server has none
	}
	if err != nil {
		return err
	}
	devices, err := LoopDevices()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		disk, err := filepath.EvalSymlinks(filepath.Join(links, entry.Name()))
		if err != nil {
			continue // it was detached meanwhile
		}
		for device, below := range devices {
			if below == disk {
				err = errors.Join(err, detachLoop(device, below))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
