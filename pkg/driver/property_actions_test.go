package driver_test

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (w *world) createVolume() { w.create(createRequest(w.name("volume")), "") }

func (w *world) name(kind string) string { return fmt.Sprint(kind, "-", w.rand.IntN(5)) }

func (w *world) copyVolume() {
	size := int64(w.rand.IntN(4))
	if name, snapshot := pick(w, w.snapshots); name != "" && w.rand.IntN(2) == 0 {
		w.create(copyRequest(w.name("volume"), snapshot.size+size, fromSnapshot(snapshot.id)), snapshot.id)
	} else if name, volume := pick(w, w.volumes); name != "" && volume.server == "" {
		w.create(copyRequest(w.name("volume"), volume.size+size, fromVolume(volume.id)), volume.id)
	}
}

func (w *world) create(req *csi.CreateVolumeRequest, source string) {
	name, size := req.GetName(), req.GetCapacityRange().GetRequiredBytes()/gib
	var answered atomic.Value // the twin's answer is as good
	what := fmt.Sprintf("create %s of %d GiB from %q", name, size, source)
	code := w.do(what, func(ctx context.Context, c csi.ControllerClient) error {
		resp, err := c.CreateVolume(ctx, req)
		if err == nil {
			answered.Store(resp.GetVolume().GetVolumeId())
		}
		return err
	})
	id, _ := answered.Load().(string)
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

func (w *world) deleteVolume() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return
	}
	what := "delete " + name
	code := w.do(what, func(ctx context.Context, c csi.ControllerClient) error {
		_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume.id})
		return err
	})
	if volume.server != "" {
		w.want(what, code, codes.FailedPrecondition)
		return
	}
	w.want(what, code, codes.OK)
	delete(w.volumes, name)
}

func (w *world) publish() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return
	}
	server := w.servers[w.rand.IntN(len(w.servers))]
	what := "publish " + name + " to " + server
	code := w.do(what, publication(volume.id, server, false))
	if volume.server != "" && volume.server != server {
		w.want(what, code, codes.FailedPrecondition)
		return
	}
	w.want(what, code, codes.OK)
	volume.server = server
}

func (w *world) unpublish() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return
	}
	server := append(w.servers, "")[w.rand.IntN(len(w.servers)+1)]
	what := "unpublish " + name + " from " + server
	w.want(what, w.do(what, withdrawal(volume.id, server)), codes.OK)
	if server == "" || server == volume.server {
		volume.server = ""
	}
}

func (w *world) expand() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return
	}
	size := volume.size + int64(w.rand.IntN(3)) - 1
	what := fmt.Sprintf("expand %s to %d GiB", name, size)
	code := w.do(what, func(ctx context.Context, c csi.ControllerClient) error {
		_, err := c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
			VolumeId: volume.id, CapacityRange: &csi.CapacityRange{RequiredBytes: max(1, size) * gib},
		})
		return err
	})
	w.want(what, code, codes.OK)
	volume.size = max(volume.size, size)
}

func (w *world) modify() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return
	}
	what := "modify " + name
	parameters := map[string]string{"labels": fmt.Sprint("step=", w.rand.IntN(3))}
	w.want(what, w.do(what, func(ctx context.Context, c csi.ControllerClient) error {
		_, err := c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
			VolumeId: volume.id, MutableParameters: parameters,
		})
		return err
	}), codes.OK)
}

func (w *world) createSnapshot() {
	name := w.name("snapshot")
	of, volume := pick(w, w.volumes)
	if of == "" {
		return
	}
	var answered atomic.Value
	what := "snapshot " + name + " of " + of
	code := w.do(what, func(ctx context.Context, c csi.ControllerClient) error {
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
}

func (w *world) deleteSnapshot() {
	name, snapshot := pick(w, w.snapshots)
	if name == "" || w.rand.IntN(2) == 0 {
		return
	}
	what := "delete snapshot " + name
	w.want(what, w.do(what, func(ctx context.Context, c csi.ControllerClient) error {
		_, err := c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snapshot.id})
		return err
	}), codes.OK)
	delete(w.snapshots, name)
}
