package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	nodeVolumes       = 100
	controllerVolumes = 5000
)

// settleTime is how long a process is left alone before its memory is read: what a garbage collector gives back takes
// a while to leave.
const settleTime = 2 * time.Second

func (p *process) settledMB(ctx context.Context) (float64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(settleTime):
	}
	return p.residentMB()
}

// measureMemory reads the resident memory of the driver's real processes.
func measureMemory(ctx context.Context, program string) (map[string]float64, error) {
	figures := make(map[string]float64)
	if reason := noDisks(); reason != "" {
		fmt.Println("\nThe node plugin's memory was not measured:", reason)
	} else if err := measureNodeMemory(ctx, program, figures); err != nil {
		return nil, err
	}
	if err := measureControllerMemory(ctx, program, figures); err != nil {
		return nil, err
	}
	fmt.Printf("\nResident memory of csi-driver\n")
	for _, line := range []struct{ key, text string }{
		{"node_idle", "node plugin, idle"},
		{"node_100", fmt.Sprintf("node plugin, %d volumes staged", nodeVolumes)},
		{"controller_idle", "controller, idle"},
		{"controller_5000", fmt.Sprintf("controller, %d volumes listed", controllerVolumes)},
	} {
		if value, measured := figures[line.key]; measured {
			fmt.Printf("  %-34s %7.1f MB\n", line.text, value)
		}
	}
	return figures, nil
}

func measureNodeMemory(ctx context.Context, program string, figures map[string]float64) error {
	m, err := newMachine(ctx, program)
	if err != nil {
		return err
	}
	err = func() error {
		if figures["node_idle"], err = m.settledMB(ctx); err != nil {
			return err
		}
		for range nodeVolumes {
			id, _, err := m.addDisk(ctx)
			if err != nil {
				return err
			}
			if err := m.bring(ctx, id, "ext4"); err != nil {
				return err
			}
		}
		for id := range m.sizes { // as a kubelet asks of each volume, once a minute
			if _, err := m.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: m.target(id)}); err != nil {
				return err
			}
		}
		figures["node_100"], err = m.settledMB(ctx)
		return err
	}()
	return errors.Join(err, m.close())
}

func measureControllerMemory(ctx context.Context, program string, figures map[string]float64) error {
	r, err := newRig(ctx, simulator.Config{})
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := startDriver(ctx, program, []string{
		"UPCLOUD_USERNAME=" + simulator.DefaultUsername, "UPCLOUD_PASSWORD=" + simulator.DefaultPassword,
		"UPCLOUD_DEBUG_API_BASE_URL=" + r.url,
	}, "--mode", "controller", "--zone", zone, "--cluster-id", "bench")
	if err != nil {
		return err
	}
	err = func() error {
		if figures["controller_idle"], err = p.settledMB(ctx); err != nil {
			return err
		}
		if _, err := r.populate(ctx, controllerVolumes); err != nil {
			return err
		}
		if err := listVolumes(ctx, csi.NewControllerClient(p.conn)); err != nil {
			return err
		}
		figures["controller_5000"], err = p.settledMB(ctx)
		return err
	}()
	return errors.Join(err, p.stop())
}

// listVolumes reads all pages twice, as a sidecar does again and again.
func listVolumes(ctx context.Context, controller csi.ControllerClient) error {
	for range 2 {
		count, token := 0, ""
		for {
			answer, err := controller.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: 500, StartingToken: token})
			if err != nil {
				return err
			}
			count += len(answer.GetEntries())
			if token = answer.GetNextToken(); token == "" {
				break
			}
		}
		if count != controllerVolumes {
			return fmt.Errorf("the controller lists %d volumes, there are %d", count, controllerVolumes)
		}
	}
	return nil
}
