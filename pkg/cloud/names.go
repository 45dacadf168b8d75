package cloud

import (
	"context"
	"strings"
)

// UniqueName reports whether no two volumes, or snapshots, can be asked for under one name of this kind: it ends in a UUID, as
// the names do that the sidecars of Kubernetes make. Other names are chosen by people, who may choose one twice.
func UniqueName(name string) bool { return titleOfClaim.MatchString(name) }

// checkUnused keeps a volume from being the result of two requests. The one with the same name that comes later may be a retry
// of the first, or a request for another volume: Nomad passes on the names that people choose, without the namespace. A retry
// comes before its volume is in use. So a volume that is in use, or has been, is another one, and whoever deleted the second
// would delete the data of the first. Volumes of unique names can only be found by retries, however late.
func (c *Cloud) checkUnused(ctx context.Context, volume *Volume) error {
	if UniqueName(volume.Name) {
		return nil
	}
	used := "was in use before"
	if volume.Labels[LabelUsed] == "" {
		now, err := c.volume(ctx, volume.ID) // lists do not tell where it is attached
		if err != nil {
			return err
		}
		if len(now.ServerIDs) == 0 {
			return nil
		}
		used = "is attached to server " + strings.Join(now.ServerIDs, ", ")
	}
	return &Error{
		Kind:    ErrAlreadyExists,
		Message: "storage " + volume.ID + " has that name and " + used + ", so it is not a new volume",
		Remedy:  "choose a name that no other volume has, such as NAMESPACE-ID, or register the storage to use it",
	}
}
