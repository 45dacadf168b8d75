package driver_test

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// step chooses what to do next, and reserves what it is about; nil when there is nothing of the kind.
func (w *world) step() func() {
	kinds := []func() func(){
		w.createVolume, w.createVolume, w.copyVolume, w.deleteVolume, w.publish, w.publish, w.publish, w.unpublish, w.unpublish,
		w.expand, w.createSnapshot, w.deleteSnapshot, w.modify, w.deleteABackup,
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return kinds[w.rand.IntN(len(kinds))]()
}

// on reserves names for a step, and returns it; nil when another step uses one of them. The lock is held.
func (w *world) on(step func(), names ...string) func() {
	for _, name := range names {
		if w.busy[name] {
			return nil
		}
	}
	for _, name := range names {
		w.busy[name] = true
	}
	return func() {
		step()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, name := range names {
			delete(w.busy, name)
		}
	}
}

// ask notes what is asked for of a volume or snapshot, empty for nothing more.
func (w *world) ask(id, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[id] = what
	if what == "" {
		delete(w.held, id)
	}
}

// mostNames is how many volumes there are at most, and how many snapshots.
const mostNames = 5

// volumeName is the name of a volume as external-provisioner makes it.
func volumeName(n int) string { return fmt.Sprintf("pvc-5b0c1a52-6d2f-4d3c-9a5e-0c4f1f7f%04d", n) }

// snapshotName is the name of a snapshot: as external-snapshotter makes it, or as a person chooses it.
func snapshotName(n int) string {
	if n%2 == 0 {
		return fmt.Sprintf("snapshot-5b0c1a52-6d2f-4d3c-9a5e-0c4f1f7f%04d", n)
	}
	return titleByHand(n)
}

// titleByHand is the name of a snapshot that a person chose, and may have given to a backup, too.
func titleByHand(n int) string { return fmt.Sprint("before upgrade ", n) }

func (w *world) aVolumeName() string { return volumeName(w.rand.IntN(mostNames)) }

func (w *world) createVolume() func() {
	name := w.aVolumeName()
	return w.on(func() { w.create(createRequest(name), "") }, name)
}

func (w *world) copyVolume() func() {
	size, name := int64(w.rand.IntN(4)), w.aVolumeName()
	if of, snapshot := pick(w, w.snapshots); of != "" && w.rand.IntN(2) == 0 {
		return w.on(func() { w.create(copyRequest(name, snapshot.size+size, fromSnapshot(snapshot.id)), snapshot.id) }, name, of)
	}
	of, volume := pick(w, w.volumes)
	if of == "" || of == name || volume.server != "" {
		return nil
	}
	return w.on(func() {
		w.hold(volume.id) // the person must not attach it meanwhile, as such a volume is not copied
		w.create(copyRequest(name, volume.size+size, fromVolume(volume.id)), volume.id)
		w.ask(volume.id, "")
	}, name, of)
}

func (w *world) hold(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[id] = true
}

func (w *world) create(req *csi.CreateVolumeRequest, source string) {
	name, size := req.GetName(), req.GetCapacityRange().GetRequiredBytes()/gib
	var answered atomic.Value // the twin's answer is as good
	what := fmt.Sprintf("create %s of %d GiB from %q", name, size, source)
	code := w.do(what, "", false, func(ctx context.Context, c csi.ControllerClient) error {
		resp, err := c.CreateVolume(ctx, req)
		if err == nil {
			answered.Store(resp.GetVolume().GetVolumeId())
		}
		return err
	})
	id, _ := answered.Load().(string)
	w.mu.Lock()
	defer w.mu.Unlock()
	has := w.volumes[name]
	switch {
	case has == nil:
		if w.want(what, code, codes.OK); code == codes.OK {
			w.volumes[name] = &modelVolume{id: id, source: source, size: size}
		}
	case has.size >= size && has.source == source: // it may have grown since
		if w.want(what, code, codes.OK); id != has.id {
			w.t.Errorf("%s: %s, and was %s", what, id, has.id)
		}
	default:
		w.want(what, code, codes.AlreadyExists)
	}
}

func (w *world) deleteVolume() func() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return nil
	}
	return w.on(func() {
		w.askToDelete(volume)
		what := "delete " + name
		code := w.do(what, volume.id, false, func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume.id})
			return err
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		if volume.server != "" {
			w.want(what, code, codes.FailedPrecondition)
			delete(w.held, volume.id)
			delete(w.asked, volume.id)
			return
		}
		w.want(what, code, codes.OK)
		delete(w.volumes, name)
	}, name)
}

// askToDelete notes that a volume is to be deleted, which the person leaves alone then.
func (w *world) askToDelete(volume *modelVolume) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[volume.id], w.held[volume.id] = "delete", true
}

func (w *world) publish() func() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return nil
	}
	server := w.servers[w.rand.IntN(len(w.servers))]
	return w.on(func() {
		what := "publish " + name + " to " + server
		w.ask(volume.id, "publish "+server)
		defer w.ask(volume.id, "")
		code := w.do(what, volume.id, true, publication(volume.id, server, false))
		if code == codes.Canceled {
			// The volume may be there or not, so that it has to be taken from there before it can go elsewhere.
			w.withdraw(name, volume, server)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if volume.server != "" && volume.server != server {
			w.want(what, code, codes.FailedPrecondition)
			return
		}
		if w.want(what, code, codes.OK); code == codes.OK {
			volume.server = server
		}
	}, name)
}

func (w *world) unpublish() func() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return nil
	}
	server := append(w.servers, "")[w.rand.IntN(len(w.servers)+1)]
	return w.on(func() {
		defer w.ask(volume.id, "")
		w.withdraw(name, volume, server)
	}, name)
}

func (w *world) withdraw(name string, volume *modelVolume, server string) {
	what := "unpublish " + name + " from " + server
	w.ask(volume.id, "unpublish "+server)
	code := w.do(what, volume.id, false, withdrawal(volume.id, server))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want(what, code, codes.OK)
	if server == "" || server == volume.server {
		volume.server = ""
	}
}

func (w *world) expand() func() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return nil
	}
	size := max(1, volume.size+int64(w.rand.IntN(3))-1)
	return w.on(func() {
		what := fmt.Sprintf("expand %s to %d GiB", name, size)
		code := w.do(what, "", false, func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
				VolumeId: volume.id, CapacityRange: &csi.CapacityRange{RequiredBytes: size * gib},
			})
			return err
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.want(what, code, codes.OK)
		volume.size = max(volume.size, size)
	}, name)
}

func (w *world) modify() func() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return nil
	}
	parameters := map[string]string{"labels": fmt.Sprint("step=", w.rand.IntN(3))}
	return w.on(func() {
		what := "modify " + name
		w.want(what, w.do(what, "", false, func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
				VolumeId: volume.id, MutableParameters: parameters,
			})
			return err
		}), codes.OK)
	}, name)
}

func (w *world) createSnapshot() func() {
	name := snapshotName(w.rand.IntN(mostNames))
	of, volume := pick(w, w.volumes)
	if of == "" {
		return nil
	}
	return w.on(func() {
		var answered atomic.Value
		what := "snapshot " + name + " of " + of
		code := w.do(what, "", false, func(ctx context.Context, c csi.ControllerClient) error {
			resp, err := c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume.id})
			if err == nil && !resp.GetSnapshot().GetReadyToUse() {
				return status.Error(codes.Aborted, "not ready")
			}
			if err == nil {
				answered.Store(resp.GetSnapshot().GetSnapshotId())
			}
			return err
		})
		id, _ := answered.Load().(string)
		w.mu.Lock()
		defer w.mu.Unlock()
		has := w.snapshots[name]
		switch {
		case has == nil:
			if w.want(what, code, codes.OK); code == codes.OK {
				w.snapshots[name] = &modelSnapshot{id: id, source: volume.id, size: volume.size}
			}
		case has.source == volume.id:
			if w.want(what, code, codes.OK); id != has.id {
				w.t.Errorf("%s: %s, and was %s", what, id, has.id)
			}
		default:
			w.want(what, code, codes.AlreadyExists)
		}
	}, name, of)
}

func (w *world) deleteSnapshot() func() {
	name, snapshot := pick(w, w.snapshots)
	if name == "" || w.rand.IntN(2) == 0 {
		return nil
	}
	return w.on(func() {
		w.ask(snapshot.id, "delete")
		what := "delete snapshot " + name
		w.want(what, w.do(what, "", false, func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snapshot.id})
			return err
		}), codes.OK)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.snapshots, name)
	}, name)
}

// deleteABackup asks for the deletion of a volume with the ID of a snapshot: it is refused, and nothing is deleted.
func (w *world) deleteABackup() func() {
	name, snapshot := pick(w, w.snapshots)
	if name == "" {
		return nil
	}
	return w.on(func() {
		what := "delete " + name + " as if it were a volume"
		code := w.do(what, "", false, func(ctx context.Context, c csi.ControllerClient) error {
			_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: snapshot.id})
			return err
		})
		w.want(what, code, codes.InvalidArgument)
	}, name)
}
