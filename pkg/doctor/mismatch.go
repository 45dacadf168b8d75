package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// ErrMismatch is the kind of errors that say that account, cluster and settings do not belong together. Nothing was judged then: with
// another cluster's kubeconfig, or another account's credentials, everything looks left behind or gone.
var ErrMismatch = errors.New("account, cluster and settings do not belong together")

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMismatch, fmt.Sprintf(format, args...))
}

func otherCluster(planned, uid string) error {
	return mismatch("the plan was made for the cluster whose namespace kube-system has the UID %s, and this one's is %s; check --kubeconfig and --context",
		planned, uid)
}

// checkAccount finds out whether the cluster is on this account, by its volumes and its nodes.
func (v *view) checkAccount(ctx context.Context) error {
	volumes := 0
	for _, volume := range v.objects.volumes {
		if volume.driver != v.config.Driver || volume.leaving || len(storagesIn(volume.handle)) == 0 {
			continue
		}
		volumes++
		if v.storages[volume.handle] != nil {
			return nil
		}
	}
	if volumes == 0 || slices.ContainsFunc(v.sorted(), v.carriesUID) {
		return nil
	}
	for server := range v.servers {
		_, err := v.config.Cloud.Server(ctx, server)
		if err == nil || !isGone(err) {
			return err
		}
	}
	return mismatch("none of the storages of this cluster's %d PersistentVolumes is in this account, and none of its nodes' servers; "+
		"check that the UpCloud credentials are those of the cluster's account", volumes)
}

// checkID finds out whether the cluster ID is the one that this cluster's volumes carry.
func (v *view) checkID() error {
	ids := map[string]bool{}
	for _, volume := range v.objects.volumes {
		storage := v.storages[volume.handle]
		if volume.driver == v.config.Driver && volume.provisioned && storage != nil && storage.Role == cloud.RoleVolume && v.mayCarry(storage) {
			ids[storage.Labels[cloud.LabelCluster]] = true
		}
	}
	for _, storage := range v.storages {
		if v.carriesUID(storage) && storage.Role == cloud.RoleVolume {
			ids[storage.Labels[cloud.LabelCluster]] = true
		}
	}
	if len(ids) == 0 || ids[v.config.ClusterID] {
		return nil
	}
	delete(ids, "")
	carried := "no cluster ID; leave --cluster-id out"
	if len(ids) > 0 {
		carried = fmt.Sprintf("csi-cluster=%s; give --cluster-id as csi-driver has it", strings.Join(slices.Sorted(maps.Keys(ids)), " or "))
	}
	return mismatch("no storage of this cluster carries the cluster ID %q: they carry %s", v.config.ClusterID, carried)
}

// mayCarry reports whether a storage may have been made by this cluster: by its UID, or before there was one. Those of UpCloud's own
// driver have no name.
func (v *view) mayCarry(s *cloud.Storage) bool {
	uid := s.Labels[cloud.LabelClusterUID]
	return s.Labels[cloud.LabelName] != "" && (uid == "" || uid == v.uid)
}
