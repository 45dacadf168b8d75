package doctor

// Title is the kind's heading.
func (k Kind) Title() string { return kindWords[k].title }

// Remedy is what a person can do about it. None leads to the loss of what may be another's.
func (k Kind) Remedy() string { return kindWords[k].remedy }

const planned = "look at each; --fix goes on with those that it may, and a reviewed plan with the others (--output yaml, then apply)"

var kindWords = map[Kind]struct{ title, remedy string }{
	WantedAgain: {"Marked or in quarantine, and wanted", "--fix takes the mark off; restore does so by ID"},
	OrphanVolume: {"Storages that no PersistentVolume knows",
		planned + "; make PersistentVolumes of those that hold wanted data, or label them keep"},
	UnfinishedCopy: {"Unfinished copies", planned},
	OrphanSnapshot: {"Backups that no VolumeSnapshotContent knows",
		"kept unless a reviewed plan says otherwise: Velero and other backup tools leave no object in the cluster"},
	ScheduledBackup: {"Backups by schedule of storages that are gone",
		"no rule ends them, and only their titles say whose they were; ask those whose they were"},
	UnexplainedAttachment: {"Attachments that no VolumeAttachment explains",
		"find out who uses the server before you detach anything; the doctor never detaches"},
	LostVolume: {"PersistentVolumes whose storage is not in this account",
		"check that the credentials are of the right account; before you delete a PersistentVolume, set its persistentVolumeReclaimPolicy to Retain"},
	LostSnapshot: {"VolumeSnapshotContents whose backup is not in this account",
		"check that the credentials are of the right account; before you delete the VolumeSnapshot, set the content's deletionPolicy to Retain"},
	LostAttachment: {"VolumeAttachments whose storage is not attached there",
		"delete the Pod that uses the volume, so that it is attached again"},
	OrphanBalancer:    {"Load balancers whose Service is gone", planned + "; what still has members is in use, and never removed"},
	AdoptableBalancer: {"Load balancers that a Service can take as its own", "set the annotation on the Service that is to have it, see docs/load-balancer-ownership.md"},
	OtherClassBalancer: {"Load balancers of Services that another controller serves now",
		"check that the Service is reached by its new address; ccm removes the former load balancer once the Service has its finalizer again"},
	OrphanComponents: {"Components on shared load balancers whose Service is gone",
		"make the Service again and delete it: ccm then takes them off, and nothing else"},
	OrphanCertificate: {"Certificate bundles that no Service asks for", planned},
	UnusedGroup: {"Load balancers made to be shared that no Service of this cluster uses",
		"other clusters may use them or be about to; the doctor never deletes what clusters share. docs/load-balancer-ownership.md says how to get rid of them"},
	TwinBalancer: {"Load balancers that carry the labels of a Service which uses another",
		"find out who copied the labels; ccm leaves it in the account when the Service goes"},
	StuckBalancer: {"Load balancers that have not come up", "look at them in the UpCloud control panel, or ask UpCloud's support"},
	DeadRoute: {"Routes that the ccm of another cluster made, and that lead to no server or to a node of this cluster",
		"find out whether that cluster still runs, which its route's name does not say; the doctor never changes a router"},
	UnusedRouter: {"Routers that a ccm made and that no network is attached to", "find out whether its cluster still runs; a router without networks costs nothing"},
	LostBalancer: {"Services whose load balancer is not in this account",
		"check that the credentials are of the right account; ccm makes the load balancer again within minutes, see the Service's events"},
}
