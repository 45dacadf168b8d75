package driver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// account is what is in the account: what must be the same however often a process died on the way.
type accountState struct {
	disks   []string // title, size, servers
	backups []string // title
}

func stateOfAccount(t *testing.T, sim *simulatortest.Server) accountState {
	t.Helper()
	var list struct{ Storages struct{ Storage []storage } }
	var state accountState
	sim.Do(t, "GET", "/storage/private", "", &list)
	for _, listed := range list.Storages.Storage {
		var answer struct {
			Storage struct {
				storage
				Type string
				Rule rule `json:"backup_rule"`
			}
		}
		sim.Do(t, "GET", "/storage/"+listed.UUID, "", &answer)
		s := answer.Storage
		switch {
		case strings.HasSuffix(s.Title, " system"):
		case s.Type == "backup":
			state.backups = append(state.backups, fmt.Sprintf("%s %d GiB %v", s.Title, s.Size, s.labels()["csi-snapshot-name"]))
		default:
			labels := s.labels()
			delete(labels, "csi-source") // an ID, which differs each time
			state.disks = append(state.disks, fmt.Sprintf("%s %d GiB attached %d %v %v", s.Title, s.Size, len(s.Servers.Server),
				labels, s.Rule))
		}
	}
	slices.Sort(state.disks)
	slices.Sort(state.backups)
	return state
}

// scene is what there is before the call that is interrupted.
type scene struct{ volume, attached, snapshot, server string }

func setScene(t *testing.T, sim *simulatortest.Server) scene {
	t.Helper()
	p := startProcess(t, sim, -1, false)
	defer p.kill()
	s := scene{server: sim.CreateServer(t, "worker-1", zone)}
	s.volume = p.create(t, createRequest("volume")).GetVolumeId()
	s.attached = p.create(t, createRequest("attached")).GetVolumeId()
	s.snapshot = p.readySnapshot(t, "snapshot", s.volume).GetSnapshotId()
	if _, err := p.publish(t, s.attached, s.server); err != nil {
		t.Fatal(err)
	}
	halfMake(t, sim, nameHalfMade, 1)
	halfCopy(t, sim, nameHalfCopied, s.snapshot)
	return s
}

// interrupted are the calls that change something. Each returns an error until it is done, and checks its answer.
var interrupted = map[string]func(scene, *testing.T) func(context.Context, csi.ControllerClient) error{
	"CreateVolume": func(scene, *testing.T) func(context.Context, csi.ControllerClient) error {
		return creation(createRequest("new"), gib)
	},
	"CreateVolume with backups": func(scene, *testing.T) func(context.Context, csi.ControllerClient) error {
		req := createRequest("new")
		req.Parameters = map[string]string{"backupInterval": "daily", "backupTime": "0430", "backupRetention": "7", "labels": "aa=b"}
		return creation(req, gib)
	},
	"CreateVolume from a snapshot, larger": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return creation(copyRequest("new", 3, fromSnapshot(s.snapshot)), 3*gib)
	},
	"CreateVolume from a volume, larger": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return creation(copyRequest("new", 2, fromVolume(s.volume)), 2*gib)
	},
	"CreateVolume that UpCloud's own driver half made": func(scene, *testing.T) func(context.Context, csi.ControllerClient) error {
		return creation(createRequest(nameHalfMade), gib)
	},
	"CreateVolume that UpCloud's own driver half copied": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return creation(copyRequest(nameHalfCopied, 3, fromSnapshot(s.snapshot)), 3*gib)
	},
	"DeleteVolume": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: s.volume})
			return err
		}
	},
	"ControllerPublishVolume": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return publication(s.volume, s.server, false)
	},
	"ControllerPublishVolume, read-only": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return publication(s.volume, s.server, true)
	},
	"ControllerPublishVolume by host name": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return publication(s.volume, "worker-1", false)
	},
	"ControllerUnpublishVolume": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return withdrawal(s.attached, s.server)
	},
	"ControllerUnpublishVolume everywhere": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return withdrawal(s.attached, "")
	},
	"CreateSnapshot": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return func(ctx context.Context, c csi.ControllerClient) error {
			resp, err := c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "new", SourceVolumeId: s.attached})
			if err != nil {
				return err
			}
			if resp.GetSnapshot().GetSourceVolumeId() != s.attached || resp.GetSnapshot().GetSizeBytes() != gib {
				return fmt.Errorf("the answer is wrong: %v", resp)
			}
			if !resp.GetSnapshot().GetReadyToUse() {
				return status.Error(codes.Aborted, "not ready")
			}
			return nil
		}
	},
	"DeleteSnapshot": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: s.snapshot})
			return err
		}
	},
	"ControllerExpandVolume": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return func(ctx context.Context, c csi.ControllerClient) error {
			resp, err := c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
				VolumeId: s.attached, CapacityRange: &csi.CapacityRange{RequiredBytes: 5 * gib},
			})
			if err == nil && resp.GetCapacityBytes() != 5*gib {
				return fmt.Errorf("the answer is wrong: %v", resp)
			}
			return err
		}
	},
	"ControllerModifyVolume": func(s scene, _ *testing.T) func(context.Context, csi.ControllerClient) error {
		return func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
				VolumeId: s.attached, MutableParameters: map[string]string{
					"backupInterval": "sun", "backupTime": "0430", "backupRetention": "7", "labels": "team=storage",
				},
			})
			return err
		}
	},
}

func creation(req *csi.CreateVolumeRequest, size int64) func(context.Context, csi.ControllerClient) error {
	return func(ctx context.Context, c csi.ControllerClient) error {
		resp, err := c.CreateVolume(ctx, req)
		if err == nil && (resp.GetVolume().GetCapacityBytes() != size || resp.GetVolume().GetVolumeId() == "") {
			return fmt.Errorf("the answer is wrong: %v", resp)
		}
		return err
	}
}

func publication(volume, node string, readOnly bool) func(context.Context, csi.ControllerClient) error {
	return func(ctx context.Context, c csi.ControllerClient) error {
		resp, err := c.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
			VolumeId: volume, NodeId: node, VolumeCapability: writer(), Readonly: readOnly,
		})
		if err == nil && (resp.GetPublishContext()["serial"] == "" || (resp.GetPublishContext()["readonly"] == "true") != readOnly) {
			return fmt.Errorf("the answer is wrong: %v", resp)
		}
		return err
	}
}

func withdrawal(volume, node string) func(context.Context, csi.ControllerClient) error {
	return func(ctx context.Context, c csi.ControllerClient) error {
		_, err := c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: volume, NodeId: node})
		return err
	}
}

// For every call: the process dies at each of its requests in turn, before or after the request took effect, and a
// fresh process gets the call again. What is in the account then is what is there when nobody died.
func TestCrashPoints(t *testing.T) {
	for name, call := range interrupted {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := simulatortest.Start(t, simulator.Config{})
			do := call(setScene(t, sim), t)
			startProcess(t, sim, -1, false).mustSucceed(t, do)
			want := stateOfAccount(t, sim)
			for _, effect := range []bool{false, true} {
				points := crashEverywhere(t, effect, call, want)
				if points == 0 {
					t.Error("the call makes no requests: nothing was tested")
				}
			}
		})
	}
}

// crashEverywhere returns at how many requests the process died.
func crashEverywhere(t *testing.T, effect bool, call func(scene, *testing.T) func(context.Context, csi.ControllerClient) error,
	want accountState) int {
	for point := 0; ; point++ {
		survived := false
		t.Run(fmt.Sprintf("request %d, effect %v", point, effect), func(t *testing.T) {
			sim := simulatortest.Start(t, simulator.Config{})
			do := call(setScene(t, sim), t)
			doomed := startProcess(t, sim, point, effect)
			for died := false; !died && !survived; {
				var err error
				err, died = doomed.call(t, do)
				survived = err == nil && !died
			}
			doomed.kill()
			startProcess(t, sim, -1, false).mustSucceed(t, do)
			got := stateOfAccount(t, sim)
			if !slices.Equal(got.disks, want.disks) || !slices.Equal(got.backups, want.backups) {
				t.Errorf("the account has\n%q\nwant\n%q", got, want)
			}
		})
		if survived || t.Failed() {
			return point
		}
	}
}
