package driver_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Calls of the scenarios. Names that begin with their- are of what is not the driver's.

func attached(volume, server string) func(*stage) call {
	return func(w *stage) call { return publication(w.ids[volume], w.ids[server], false) }
}

func detached(volume, server string) func(*stage) call {
	return func(w *stage) call { return withdrawal(w.ids[volume], w.ids[server]) }
}

func then(calls ...func(*stage) call) func(*stage) []call {
	return func(w *stage) (all []call) {
		for _, make := range calls {
			all = append(all, make(w))
		}
		return all
	}
}

func made(req func(*stage) *csi.CreateVolumeRequest) func(*stage) call {
	return func(w *stage) call {
		return func(ctx context.Context, c csi.ControllerClient) error {
			resp, err := c.CreateVolume(ctx, req(w))
			if err == nil && w.begun() {
				w.answered["the volume"] = resp.GetVolume().GetVolumeId()
			}
			return err
		}
	}
}

func empty(*stage) *csi.CreateVolumeRequest { return createRequest("new") }

func ofVolume(w *stage) *csi.CreateVolumeRequest {
	return copyRequest("new", 2, fromVolume(w.ids["volume"]))
}

func deleted(what string) func(*stage) call {
	return func(w *stage) call {
		return func(ctx context.Context, c csi.ControllerClient) error {
			id := w.ids[what]
			if id == "" {
				id = w.answered[what]
			}
			if _, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
				return err
			}
			delete(w.answered, what)
			return nil
		}
	}
}

// refusedDeletion asks for the deletion of a volume with an ID that is not a volume's, and takes any answer.
func refusedDeletion(what string) func(*stage) call {
	return func(w *stage) call {
		return func(ctx context.Context, c csi.ControllerClient) error {
			_, _ = c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: w.ids[what]})
			return nil
		}
	}
}

func snapped(name string) func(*stage) call {
	return func(w *stage) call {
		return func(ctx context.Context, c csi.ControllerClient) error {
			resp, err := c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: w.ids["volume"]})
			if err == nil && !resp.GetSnapshot().GetReadyToUse() {
				return status.Error(codes.Aborted, "not ready")
			}
			if err == nil && w.begun() {
				w.answered["the snapshot"] = resp.GetSnapshot().GetSnapshotId()
			}
			return err
		}
	}
}

func unsnapped(w *stage) call {
	return func(ctx context.Context, c csi.ControllerClient) error {
		if _, err := c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: w.answered["the snapshot"]}); err != nil {
			return err
		}
		delete(w.answered, "the snapshot")
		return nil
	}
}

func labelled(team string) func(*stage) call {
	return func(w *stage) call {
		return func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
				VolumeId: w.ids["volume"], MutableParameters: map[string]string{"labels": "team=" + team},
			})
			return err
		}
	}
}

// What there is before.

func servers(w *stage) {
	w.know("a", w.sim.CreateServer(w.t, "a", zone))
	w.know("b", w.sim.CreateServer(w.t, "b", zone))
}

func volume(w *stage) {
	servers(w)
	resp, err := w.players[0].controller.CreateVolume(w.t.Context(), createRequest("volume"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.know("volume", resp.GetVolume().GetVolumeId())
}

func volumeAtA(w *stage) {
	volume(w)
	if err := attached("volume", "a")(w)(w.t.Context(), w.players[0].controller); err != nil {
		w.t.Fatal(err)
	}
	w.know("their-disk", halfMake(w.t, w.sim, "theirs", 1))
}

func backups(title string) func(*stage) {
	return func(w *stage) {
		volume(w)
		for _, name := range []string{"their-backup-1", "their-backup-2"} {
			var made struct{ Storage storage }
			w.sim.Do(w.t, "POST", "/storage/"+w.ids["volume"]+"/backup", fmt.Sprintf(`{"storage":{"title":%q}}`, title), &made)
			w.know(name, made.Storage.UUID)
		}
	}
}

func (w *stage) personAttaches(disk, server string) {
	w.sim.Do(w.t, "POST", "/server/"+w.ids[server]+"/storage/attach",
		fmt.Sprintf(`{"storage_device":{"type":"disk","address":"virtio","storage":%q}}`, w.ids[disk]), nil)
}

func theirsToTheFreedSlot(w *stage) { w.personAttaches("their-disk", "a") }

func swapsByHand(w *stage) {
	w.sim.Do(w.t, "POST", "/server/"+w.ids["a"]+"/storage/detach",
		fmt.Sprintf(`{"storage_device":{"storage":%q}}`, w.ids["volume"]), nil)
	w.personAttaches("their-disk", "a")
}

func volumeIsAtA(w *stage) bool {
	var at struct{ Storage storage }
	w.sim.Do(w.t, "GET", "/storage/"+w.ids["volume"], "", &at)
	return slices.Equal(at.Storage.Servers.Server, []string{w.ids["a"]})
}

func volumeIsNotAtA(w *stage) bool { return !volumeIsAtA(w) }
