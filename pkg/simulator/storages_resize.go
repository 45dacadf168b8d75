package simulator

import "context"

type resizeAnswer struct {
	ResizeBackup storageDetails `json:"resize_backup"`
}

// resizeFilesystem answers as if the storage had a partition with a filesystem that could grow: the simulator does not
// look into disks. The backup that the API makes first is there.
func (s *Simulator) resizeFilesystem(c *call) (any, error) {
	st, err := s.ownStorage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	if st.kind != kindNormal {
		return nil, conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s' and cannot be resized.", st.uuid,
			st.kind)
	}
	if err := requireOnline(st); err != nil {
		return nil, err
	}
	if err := s.requireServersStopped(st); err != nil {
		return nil, err
	}
	b := &storage{
		uuid: s.newUUID(storageKind), title: "Resize Backup", zone: st.zone, size: st.size, encrypted: st.encrypted,
		kind: kindBackup, access: "private", origin: st.uuid, created: s.now(), state: storageMaintenance,
	}
	b.started, b.due = s.now(), s.now()
	s.storages.put(b.uuid, b)
	st.state = storageMaintenance
	copied := s.copying(st, b, storageMaintenance)
	var work func(context.Context) error
	if s.cfg.Disks != nil {
		from, to, size := st.uuid, b.uuid, st.size
		work = func(ctx context.Context) error { return s.cfg.Disks.Copy(ctx, from, to, size) }
	}
	done := make(chan struct{})
	var failure error
	s.operate(0, work, func(err error) {
		defer close(done)
		copied()
		st.state, b.state = storageOnline, storageOnline
		if failure = planeFailed(err); failure != nil {
			s.storages.remove(b.uuid)
		}
	})
	c.done = done
	c.then = func() (any, error) {
		if failure != nil {
			return nil, failure
		}
		return resizeAnswer{s.storageDetails(b).Storage}, nil
	}
	return nil, nil
}
