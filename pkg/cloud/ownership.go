package cloud

import (
	"cmp"
	"context"
	"fmt"
)

// What this program may do to a storage depends on who made it, as its labels and title tell. That a PersistentVolume names a
// storage proves nothing: whoever may create PersistentVolumes may name any storage of the account. Labels are written by whoever
// has rights in the account. docs/storage.md has the table of what is allowed to what.

const (
	// LabelImport is put on a storage by an administrator. Its value names the cluster that may use the storage as if it had made
	// it: the cluster's UID, or Config.ClusterID, or "yes" for a program that knows neither.
	LabelImport = "csi-import"
	// LabelAttachedBy is put on a disk that was made by hand before it is attached. Its value names the cluster, as in LabelImport.
	// A disk without it was attached by hand, and is not detached.
	LabelAttachedBy = "csi-attached-by"
)

// origin says who made a storage.
type origin int

const (
	// originCluster: a program of this kind made it for this cluster, or for one that gave no name.
	originCluster origin = iota
	// originUpCloud: its title is one that UpCloud's own driver gives, and nothing claims it for another cluster.
	originUpCloud
	// originImported: an administrator labelled it for this cluster.
	originImported
	// originHandMade: nothing says that a driver made it.
	originHandMade
	// originOther: its labels or its title claim it for another cluster.
	originOther
	// originUnknown: its labels name a cluster's UID, and this program does not know that of its own cluster.
	originUnknown
)

// isOwn reports whether this cluster may do with the storage what it likes.
func (o origin) isOwn() bool { return o <= originImported }

// originOf tells who made a storage.
func (c *Cloud) originOf(labels map[string]string, title string) origin {
	if cluster, found := labels[LabelImport]; found {
		if c.isNameOfCluster(cluster) {
			return originImported
		}
		return originOther
	}
	return c.madeBy(labels, title)
}

// madeBy is originOf without regard to LabelImport. The UID counts before the name, which people may give twice or change.
func (c *Cloud) madeBy(labels map[string]string, title string) origin {
	own, uid, name := c.ClusterUID(), labels[LabelClusterUID], labels[LabelCluster]
	made := labels[LabelName] != "" || labels[LabelSnapshotName] != ""
	switch {
	case uid != "" && uid == own:
		return originCluster
	case uid != "" && own != "":
		return originOther
	case name != "" && name != c.config.ClusterID:
		return originOther
	case uid != "" && name == "":
		return originUnknown
	case made:
		return originCluster
	}
	if begun := titleOfUnfinished.FindStringSubmatch(title); begun != nil {
		return originOther // no volume of anyone yet
	}
	if begun := titleOfBegun.FindStringSubmatch(title); begun != nil {
		if begun[3] != c.config.ClusterID {
			return originOther
		}
		return originCluster
	}
	if titleOfProvisioned.MatchString(title) || titleOfSnapshotter.MatchString(title) {
		return originUpCloud
	}
	return originHandMade
}

// clusterName is how labels name this cluster.
func (c *Cloud) clusterName() string { return cmp.Or(c.ClusterUID(), c.config.ClusterID, "yes") }

func (c *Cloud) isNameOfCluster(name string) bool {
	return name == c.clusterName() || name != "" && name == c.config.ClusterID
}

// use is what is to be done to a storage.
type use string

const (
	useAttach   use = "attach"
	useDetach   use = "detach"
	useDelete   use = "delete"
	useGrow     use = "grow"
	useModify   use = "modify"
	useSnapshot use = "make snapshots of"
	useCopy     use = "copy"
)

// checkUse returns nil if this cluster may do that to a storage, and else an error of kind ErrNotOwned. ErrUnavailable where that
// is not known yet.
func (c *Cloud) checkUse(use use, labels map[string]string, title string) error {
	switch c.originOf(labels, title) {
	case originHandMade:
		if use == useAttach && !c.config.RequireImportLabel {
			return nil
		}
		return c.notOwned(use, "it was not made for this cluster: none of its labels says so")
	case originOther:
		return c.notOwned(use, "it is another cluster's: "+claimOf(labels, title))
	case originUnknown:
		return &Error{
			Kind:    ErrUnavailable,
			Message: "it has the label " + LabelClusterUID + "=" + labels[LabelClusterUID] + ", and the UID of this cluster is not known",
			Remedy:  "allow the driver to read the namespace kube-system, or give --cluster-uid",
		}
	}
	return nil
}

// claimOf is what says of a storage that it is another cluster's.
func claimOf(labels map[string]string, title string) string {
	for _, key := range []string{LabelImport, LabelClusterUID, LabelCluster} {
		if value := labels[key]; value != "" {
			return "it has the label " + key + "=" + value
		}
	}
	return fmt.Sprintf("its title is %q", title)
}

func (c *Cloud) notOwned(use use, why string) error {
	return &Error{
		Kind: ErrNotOwned, Message: why,
		Remedy: fmt.Sprintf("check the ID; to let this cluster %s the storage, set its label %s=%s in the UpCloud account",
			use, LabelImport, c.clusterName()),
	}
}

// CheckAttach returns nil if the volume, as Volume returned it, may be attached to the server or be used there. labels are to be
// put on it before. ErrNotOwned if it may not: it is another cluster's, or something else than this program attached it.
func (c *Cloud) CheckAttach(ctx context.Context, volume *Volume, attached bool) (labels map[string]string, err error) {
	doing := Error{Op: "attach", Resource: "storage", ID: volume.ID}
	if err := c.checkUse(useAttach, volume.Labels, volume.Title); err != nil {
		return nil, explain(err, doing)
	}
	if c.originOf(volume.Labels, volume.Title) != originHandMade || c.attachedByUs(volume.Labels) {
		return nil, nil
	}
	switch {
	case attached && c.config.AttachedBefore != nil:
		return nil, explain(c.checkAttachedBefore(ctx, volume.ID, useAttach), doing)
	case attached:
		return nil, explain(c.notOwned(useAttach, "it is attached to the server already, and this driver did not attach it"), doing)
	case volume.partOfPlan:
		return nil, explain(c.notOwned(useAttach, "it is the system disk of a server's plan"), doing)
	}
	return map[string]string{LabelAttachedBy: c.clusterName()}, nil
}

func (c *Cloud) attachedByUs(labels map[string]string) bool {
	by, found := labels[LabelAttachedBy]
	return found && c.isNameOfCluster(by)
}

// checkSnapshot is checkUse for a backup. One without labels (made by hand, on schedule, or by UpCloud's own driver) belongs to the
// cluster of its volume, which is looked up. To restore one whose volume nothing claims is allowed as to attach such a disk is.
func (c *Cloud) checkSnapshot(ctx context.Context, use use, backup *Snapshot) error {
	from := c.originOf(backup.Labels, backup.Title)
	if from != originHandMade && from != originUpCloud || backup.SourceID == "" {
		return c.checkBackup(use, backup)
	}
	volume, err := c.volume(ctx, backup.SourceID)
	switch {
	case missing(err):
		return c.checkBackup(use, backup)
	case err != nil:
		return err
	}
	switch by := c.originOf(volume.Labels, volume.Title); {
	case by.isOwn():
		return nil
	case by == originOther:
		return c.notOwned(use, "it is a backup of storage "+volume.ID+", which is another cluster's: "+claimOf(volume.Labels, volume.Title))
	}
	return c.checkBackup(use, backup)
}

func (c *Cloud) checkBackup(use use, backup *Snapshot) error {
	if use == useCopy && !c.config.RequireImportLabel && c.originOf(backup.Labels, backup.Title) == originHandMade {
		return nil
	}
	return c.checkUse(use, backup.Labels, backup.Title)
}
