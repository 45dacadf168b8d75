package simulator

import (
	"context"
	"time"
)

// copyDuration is how long copying a storage of that size takes.
func (s *Simulator) copyDuration(size int) time.Duration {
	return s.durationOf(realistic.copyBase + time.Duration(size)*realistic.copyPerGiB)
}

// startCopy fills to with what from holds: meanwhile from is in the state busy and to in maintenance, then both are
// online, or to is in error when the data plane failed. The lock is held.
func (s *Simulator) startCopy(from, to *storage, busy string, done func()) {
	d := s.copyDuration(to.size)
	if from.access == "private" {
		from.state = busy
	}
	to.state = storageMaintenance
	to.started, to.due = s.now(), s.now().Add(d)
	copied := s.copying(from, to, busy)
	var work func(context.Context) error
	if s.cfg.Disks != nil && !from.public() {
		source, target, size := from.uuid, to.uuid, to.size
		work = func(ctx context.Context) error { return s.cfg.Disks.Copy(ctx, source, target, size) }
	} else if s.cfg.Disks != nil {
		target, size := to.uuid, to.size // UpCloud's own templates have no bytes here
		work = func(context.Context) error { return s.cfg.Disks.Create(target, size) }
	}
	s.operate(d, work, func(err error) {
		copied()
		if from.state == busy {
			from.state = storageOnline
		}
		to.state = storageOnline
		if err != nil {
			s.reportPlane("copy disk", to.uuid, err)
			to.state = storageError
		}
		if done != nil {
			done()
		}
	})
}

func (s *Simulator) cloneStorage(c *call) (any, error) {
	from, err := s.storage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req storageRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.Storage
	if err := checkTitle(r.Title); err != nil {
		return nil, err
	}
	if err := s.checkZone(r.Zone); err != nil {
		return nil, err
	}
	if from.kind == kindCDROM {
		return nil, conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s' and cannot be cloned.", from.uuid,
			from.kind)
	}
	if err := requireOnline(from); err != nil {
		return nil, err
	}
	if err := s.requireServersStopped(from); err != nil {
		return nil, err
	}
	to, err := s.newClone(from, diskSpec{title: r.Title, zone: r.Zone, tier: r.Tier, encrypted: bool(r.Encrypted)})
	if err != nil {
		return nil, err
	}
	s.storages.put(to.uuid, to)
	s.startCopy(from, to, storageCloning, nil)
	return s.storageDetails(to), nil
}

// newClone returns a storage as large as from, or larger when the spec says so. Labels of the user's are not copied;
// the API's own, which begin with an underscore, are, and clones of a template say so.
func (s *Simulator) newClone(from *storage, spec diskSpec) (*storage, error) {
	if spec.size == 0 {
		spec.size = from.size
	}
	if spec.tier == "" {
		spec.tier = from.tier
	}
	if spec.size < from.size {
		return nil, badRequest("SIZE_INVALID", "The size %d GiB is smaller than the %d GiB of the storage %s.", spec.size,
			from.size, from.uuid)
	}
	to, err := s.newDisk(spec)
	if err != nil {
		return nil, err
	}
	for _, l := range from.labels {
		if l.Key[0] == '_' {
			to.labels = append(to.labels, l)
		}
	}
	if from.public() && from.kind == kindTemplate {
		to.labels = append(to.labels, Label{"_template_uuid", from.uuid})
	}
	return to, nil
}

// diskToCopy reads a request for a storage of another type made of a disk: the disk, if it can be copied now, and the title.
func (s *Simulator) diskToCopy(c *call, done string) (from *storage, title string, err error) {
	if from, err = s.ownStorage(c.path("uuid")); err != nil {
		return nil, "", err
	}
	var req storageRequest
	if err := c.decode(&req); err != nil {
		return nil, "", err
	}
	if err := checkTitle(req.Storage.Title); err != nil {
		return nil, "", err
	}
	if from.kind != kindNormal {
		return nil, "", conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s' and cannot be %s.",
			from.uuid, from.kind, done)
	}
	return from, req.Storage.Title, requireOnline(from)
}

func (s *Simulator) backupStorage(c *call) (any, error) {
	from, title, err := s.diskToCopy(c, "backed up")
	if err != nil {
		return nil, err
	}
	return s.storageDetails(s.backUp(from, title)), nil
}

func (s *Simulator) restoreBackup(c *call) (any, error) {
	b, err := s.ownStorage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	if b.kind != kindBackup {
		return nil, conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s', not a backup.", b.uuid, b.kind)
	}
	origin, ok := s.storages.get(b.origin)
	if !ok {
		return nil, notFound("STORAGE_NOT_FOUND", "The storage %s does not exist.", b.origin)
	}
	if err := requireOnline(b); err != nil {
		return nil, err
	}
	if err := requireOnline(origin); err != nil {
		return nil, err
	}
	if err := s.requireServersStopped(origin); err != nil {
		return nil, err
	}
	s.startCopy(b, origin, storageMaintenance, nil)
	return nil, nil
}

func (s *Simulator) templatizeStorage(c *call) (any, error) {
	from, title, err := s.diskToCopy(c, "templatized")
	if err != nil {
		return nil, err
	}
	if err := s.requireServersStopped(from); err != nil {
		return nil, err
	}
	t := &storage{
		uuid: s.newUUID(storageKind), title: title, zone: from.zone, tier: from.tier, size: from.size,
		encrypted: from.encrypted, kind: kindTemplate, access: "private", created: s.now(),
	}
	s.storages.put(t.uuid, t)
	s.startCopy(from, t, storageMaintenance, nil)
	return s.storageDetails(t), nil
}

// requireServersStopped refuses storages that a server that is not stopped uses.
func (s *Simulator) requireServersStopped(st *storage) error {
	for _, uuid := range append([]string{st.reserved}, st.servers...) {
		if srv, ok := s.servers.get(uuid); ok && srv.state != serverStopped {
			return conflict("SERVER_STATE_ILLEGAL", "The storage %s is attached to the server %s, which is in the state '%s'; "+
				"it must be 'stopped'.", st.uuid, srv.uuid, srv.state)
		}
	}
	return nil
}
